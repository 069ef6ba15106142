"""Batch scoring of published days, with the slots' own copy of an artifact or that of a real registry."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from include.kernel.errors import ArtifactRejected, DataRefused, ServiceUnavailable
from include.model import artifact
from include.model.compiled import compiling
from include.model.integrity.artifact_integrity import copy_verified
from include.model.schema import conform
from include.scoring.core import scoring
from include.scoring.jobs import score
from tests import credit, edge
from tests.job_world import FIRST, LAST, go_live, publish

ROWS = 400  # a part, here


@pytest.fixture
def manifest(small, tmp_path, monkeypatch):
    """Two published days, and a cut that makes three parts of each."""
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path / "serving"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for module in (scoring, score):
        monkeypatch.setattr(module, "PART_ROWS", ROWS)
    found = small()
    for number in range(2):
        publish(edge.store(), found, FIRST + timedelta(days=number))
    return found


@pytest.fixture
def served(manifest, tmp_path):
    """Serves a candidate, compiled or as its pipeline, and gives its digest."""

    def serve(kind: str = "logistic", compiled: bool = True) -> str:
        model, place = credit.trained(kind), tmp_path / f"{kind}-{compiled}"
        if compiled:
            digest = artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, place)
        else:
            digest = artifact.save(model.pipeline, model.meta, place)
        copy_verified(place, tmp_path / "serving" / "artifacts", digest)
        return digest

    return serve


@pytest.fixture
def run(manifest, ask):
    def asked(digest: str, *days: date, version: str = "3", key: str = "k"):
        known = {each.day: each.id for each in edge.store().read_history()}
        wanted = [{"day": str(day), "snapshot": known.get(day, "0" * 64)} for day in days or (FIRST,)]
        return ask("score", key, pinned={"version": version, "digest": digest, "days": wanted})

    return asked


def files(uri: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(uri).iterdir())}


@pytest.mark.parametrize(("kind", "compiled"), [("logistic", True), ("boosting", True), ("logistic", False)])
def test_every_row_has_the_score_the_model_gives_it_in_the_order_of_the_snapshot(manifest, served, run, kind, compiled):
    digest = served(kind, compiled)
    outputs = run(digest).outputs
    found = pl.read_parquet(f"{outputs['uris'][0]}/*.parquet")
    rows = edge.store().read_rows(edge.store().list_snapshots()[:1])
    expected = credit.trained(kind).predict_frame(conform(rows, credit.columns()))
    assert found.columns == [manifest.contract.id, *scoring.RESULT_COLUMNS]
    assert found[manifest.contract.id].to_list() == rows[manifest.contract.id].tolist()
    assert np.allclose(found["score"], expected, rtol=0, atol=1e-6)
    assert found["decision"].to_list() == [score >= 0.25 for score in found["score"]]
    assert found["label"].to_list() == ["bad" if yes else "good" for yes in found["decision"]]
    assert set(found["version"]) == {"3"} and set(found["digest"]) == {digest}
    assert outputs["parts"] == outputs["parts_scored"] == 3


def test_what_stands_in_the_last_file_is_what_the_rows_come_to(manifest, served, run):
    outputs = run(served()).outputs
    place = Path(outputs["uris"][0])
    whole, found = json.loads((place / "scores.json").read_text()), pl.read_parquet(place / "*.parquet")
    assert whole["rows"] == whole["tally"]["rows"] == len(found) == outputs["rows"]
    assert whole["tally"]["positives"] == found["decision"].sum()
    assert whole["tally"]["total"] == pytest.approx(found["score"].sum())
    assert whole["tally"]["histogram"] == np.histogram(found["score"], scoring.BINS, (0, 1))[0].tolist()


def test_the_same_work_twice_is_one_result_and_loads_no_model(manifest, served, run, tmp_path):
    digest = served()
    first = run(digest).outputs
    before = files(first["uris"][0])
    (tmp_path / "serving").rename(tmp_path / "away")
    again = run(digest, key="another run").outputs
    assert again["parts_scored"] == 0 and again["uris"] == first["uris"]
    assert files(first["uris"][0]) == before


def test_a_run_goes_on_behind_the_parts_that_are_there_and_ends_with_the_same_bytes(served, run):
    digest = served()
    outputs = run(digest).outputs
    place = Path(outputs["uris"][0])
    undisturbed = files(str(place))
    for name in ("part-00001.json", "part-00002.parquet", "part-00002.json", "scores.json"):
        (place / name).unlink()
    assert run(digest).outputs["parts_scored"] == 2
    assert files(str(place)) == undisturbed


@pytest.mark.parametrize("damage", [b"", b"PAR1 but not whole", None])
@pytest.mark.parametrize("name", ["part-00001.parquet", "part-00001.json"])
def test_a_part_that_was_damaged_is_scored_again_and_no_other(served, run, name, damage):
    digest = served()
    place = Path(run(digest).outputs["uris"][0])
    undisturbed = files(str(place))
    content = undisturbed[name]
    (place / "scores.json").unlink()
    (place / name).write_bytes(content[:-9] + b"!" + content[-8:] if damage is None else damage)
    assert run(digest).outputs["parts_scored"] == 1
    assert files(str(place)) == undisturbed


def test_a_range_is_scored_day_by_day_and_only_what_is_missing(served, run):
    digest, second = served(), FIRST + timedelta(days=1)
    run(digest, FIRST)
    outputs = run(digest, FIRST, second).outputs
    assert outputs["days"] == [str(FIRST), str(second)]
    assert outputs["parts_scored"] == 3 and outputs["parts"] == 6


def test_two_versions_of_a_day_lie_beside_each_other(served, run):
    one, two = run(served()).outputs, run(served("boosting"), version="4").outputs
    assert one["uris"] != two["uris"]
    assert all(Path(uri, "scores.json").exists() for uri in (*one["uris"], *two["uris"]))


def test_the_page_shows_the_day_beside_the_day_before(served, run):
    digest = served()
    alone = Path(run(digest, FIRST).outputs["page"]).read_text()
    both = Path(run(digest, FIRST + timedelta(days=1)).outputs["page"]).read_text()
    assert f"{FIRST}, scored with version 3" in alone and str(FIRST + timedelta(days=1)) not in alone
    assert str(FIRST) in both and both.count('class="num"') == 2


def test_a_served_copy_that_was_altered_is_not_used_and_the_registry_is_asked(served, run, tmp_path):
    digest = served()
    (tmp_path / "serving" / "artifacts" / digest / "encoding.json").write_text("{}")
    with pytest.raises(ServiceUnavailable, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        run(digest)


def test_an_artifact_that_misses_its_golden_rows_scores_nothing(manifest, run, tmp_path):
    model = credit.trained("logistic")
    golden = tuple(each.model_copy(update={"probability": 1 - each.probability}) for each in model.meta.golden)
    meta = model.meta.model_copy(update={"golden": golden})
    digest = artifact.save_compiled(compiling.compile_pipeline(model.pipeline), meta, tmp_path / "wrong")
    copy_verified(tmp_path / "wrong", tmp_path / "serving" / "artifacts", digest)
    with pytest.raises(ArtifactRejected, match="golden"):
        run(digest)
    assert not (tmp_path / "store" / "scores").exists()


def test_a_snapshot_that_is_not_in_this_store_is_named(served, run):
    with pytest.raises(DataRefused, match=r"2026-08-05 has no snapshot 000000000000 in this store"):
        run(served(), LAST)


def test_rows_that_were_damaged_score_nothing(served, run):
    digest, [day, _] = served(), edge.store().list_snapshots()
    path = edge.store().fetch_file(day)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataRefused, match="is not what was published"):
        run(digest)


def test_without_a_served_copy_the_versions_artifact_is_fetched_and_held_to_its_digest(
    place, ask, registry, tmp_path, monkeypatch
):
    monkeypatch.delenv("EVERGREEN_SERVING_DIR", raising=False)
    version = go_live(registry, ask("train").outputs["run_id"])
    digest, day = artifact.compute_digest(registry.fetch(version, tmp_path)), edge.store().list_snapshots()[-1]
    wanted = {"version": version, "digest": digest, "days": [{"day": str(day.day), "snapshot": day.id}]}
    assert ask("score", pinned=wanted).outputs["rows"] == day.rows
    with pytest.raises(ArtifactRejected, match="instead of 000000000000"):
        ask("score", pinned={**wanted, "digest": "0" * 64})
