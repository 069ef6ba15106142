"""`make lineage` against a real MLflow server: from a version to its rows, and from a row to who saw it."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from click.testing import Result
from typer.testing import CliRunner

from include.data.wiring import open_snapshot_store
from include.embedded.commands.lineage import app
from include.kernel.code_digest import digest_training_code
from include.manifest import read_manifest
from tests.ground import free_ports
from tests.job_world import FIRST, LAST, go_live, publish


def lineage(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


@pytest.fixture
def version(place, small, ask, registry) -> str:
    """A champion trained on days 1 to 3 and judged by day 4."""
    small(name=place.name, **{"train.candidates": {"logistic": {"C": 1.0}}})
    run_id = ask("train").outputs["run_id"]
    ask("evaluate", run_id=run_id)
    return go_live(registry, run_id)


def lines(result: Result) -> list[list[str]]:
    """The cells of every line of the tables."""
    table = (line.strip("│").split("│") for line in result.output.splitlines() if line.startswith("│"))
    return [[cell.strip() for cell in line] for line in table]


def test_a_version_names_its_exact_snapshots_and_by_what_it_was_made(version):
    result = lineage("--model", version)
    assert result.exit_code == 0, result.output
    days = [line for line in lines(result) if line[0].startswith("2026-")]
    kept = open_snapshot_store().list_snapshots()
    assert [(line[0], line[1], line[2], line[3]) for line in days] == [
        (str(day.day), part, str(day.rows), day.id[:12])
        for day, part in zip(kept, ["train", "train", "train", "holdout"], strict=True)
    ]
    passport = {line[0]: line[1] for line in lines(result) if len(line) == 2}
    assert passport["model"].endswith(f"version {version} (champion)")
    assert passport["manifest"] == f"{read_manifest().digest} (the present one)"
    assert passport["code"].startswith(digest_training_code(read_manifest().train.features)) and passport[
        "gate"
    ].startswith("passed")
    assert "known as of 2026-08-05: train 3341 rows, holdout 1113 rows" in result.output
    assert "source: test" in result.output


def test_a_row_names_its_day_and_every_model_that_saw_it_with_the_part_it_played(version, ask):
    ask("train", key="unregistered", as_of=LAST - timedelta(days=1))
    trained, judging = lineage("--row", "A20260801-0003"), lineage("--row", "A20260804-0003")
    first, last = open_snapshot_store().list_snapshots()[0], open_snapshot_store().list_snapshots()[-1]
    [place, *models] = [line for line in lines(trained) if line[0].startswith(("2026", "version", "not"))]
    assert place[:5] == ["2026-08-01", "4", first.id[:12], "2026-08-02", "counts"]
    assert [(line[0].split(":")[0], line[1], line[2]) for line in models] == [
        (f"version {version}", "2026-08-05", "train"),
        ("not registered", "2026-08-04", "train"),
    ]
    assert models[0][3:6] == [first.id[:12], "live", "passed"]
    [_, model] = [line for line in lines(judging) if line[0].startswith(("2026", "version", "not"))]
    assert model[:4] == [f"version {version}", "2026-08-05", "holdout", last.id[:12]]


def test_a_window_too_long_for_a_tag_is_trained_and_its_rows_lead_to_it(place, small, ask, registry, monkeypatch):
    monkeypatch.setattr("include.data.core.lineage.LONGEST_LIST", 20)  # four days have 51 characters
    small(name=place.name, **{"train.candidates": {"logistic": {"C": 1.0}}})
    run_id = ask("train").outputs["run_id"]
    with registry.open_client() as client:
        told = client.get_run(run_id).data.tags["evergreen.data"]
    assert told.startswith("sha256:") and told.endswith(" of 4 snapshots")
    for row, part in (("A20260801-0003", "train"), ("A20260804-0003", "holdout")):
        [model] = [line for line in lines(lineage("--row", row)) if line[0].startswith("not registered")]
        assert model[2] == part


def test_a_day_corrected_since_is_found_in_both_versions_and_the_model_saw_the_first(version, place):
    publish(open_snapshot_store(), place, FIRST, "new_market", as_of=LAST + timedelta(days=9))
    [*places, model] = [line for line in lines(lineage("--row", "A20260801-0003")) if line[0][:4] in ("2026", "vers")]
    assert [line[4] for line in places] == ["corrected since", "counts"]
    assert model[3] == places[0][2]


def test_a_row_given_up_for_its_entity_was_not_trained_on_and_the_answer_says_so(place, small, ask, registry):
    small(name=place.name, **{"train.candidates": {"logistic": {"C": 1.0}}, "train.entity": "Amount"})
    ask("train")
    first, *_, last = open_snapshot_store().list_snapshots()
    judging = set(open_snapshot_store().read_rows([last], ["Amount"])["Amount"])
    rows = open_snapshot_store().read_rows([first], ["application_id", "Amount"])
    alone, shared = (rows[rows["Amount"].isin(judging) == among]["application_id"].iloc[0] for among in (False, True))
    [kept] = [line for line in lines(lineage("--row", alone)) if line[0].startswith("not registered")]
    [left] = [line for line in lines(lineage("--row", shared)) if line[0].startswith("not registered")]
    assert (kept[2], left[2]) == ("train", "left out of train: its Amount is in a later part")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--model", "99"), 65, "has no version '99'; it has 1."),
        (
            ("--row", "nobody"),
            65,
            "any of the 4 days in the store holds a row with application_id 'nobody'",
        ),
        ((), 65, "Name one of the two: make lineage MODEL=3, or make lineage ROW="),
    ],
    ids=["no version", "no row", "nothing"],
)
def test_what_cannot_be_answered_is_one_sentence_that_teaches(version, arguments, code, told):
    result = lineage(*arguments)
    assert result.exit_code == code
    assert told in result.output and "Traceback" not in result.output


def test_without_mlflow_it_says_so_and_that_one_may_try_again(place, monkeypatch):
    [nobody] = free_ports(1)
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody}")
    result = lineage("--model", "1")
    assert result.exit_code == 75 and "does not answer" in result.output
