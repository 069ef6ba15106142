"""`make contract`: what it proposes can be read, and lets its own sample pass."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from include import manifest as manifests
from include.data.core.proposal import compute_lower_bound, compute_max_missing, compute_upper_bound
from include.data.validation.polars_validator import validate
from include.data.validation.sample_profile import survey_sample
from include.embedded.commands.propose_contract import main
from tests.delivered import read_day

DAY = date(2026, 8, 1)
ODD = pd.DataFrame(
    {
        "customer": [f"C{number}" for number in range(40)],
        "outcome": ["left", "stayed"] * 20,
        "tenure, months": range(40),
        "plan": ["no", "yes", "on", "null"] * 10,
        "zip": ["01234", "80331"] * 20,
        "balance": [-12.5, 3.25, None, 1e6] * 10,
        "joined": ["2026-08-01T10:00:00Z"] * 40,
        "note": [f"# {number}: <b>, 'x'" for number in range(40)],
        "empty": [None] * 40,
        "größe": [1e-7, 0.0] * 20,
    }
)


def proposal(sample: Path, room: Path, label: str = "") -> str:
    out = room / "contract.yaml"
    assert main([str(sample), "--out", str(out), "--label", label]) == 0
    return out.read_text()


def manifest_with(text: str, label: dict[str, object]) -> manifests.Manifest:
    shipped = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    return manifests.parse(yaml.safe_dump({**shipped, **yaml.safe_load(text), "label": label, "groups": {}}))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_proposal_can_be_read_and_its_own_sample_passes_it(tmp_path: Path, kind: str) -> None:
    sample = tmp_path / f"day.{kind}"
    ODD.to_csv(sample, index=False) if kind == "csv" else ODD.to_parquet(sample, index=False)
    text = proposal(sample, tmp_path, "outcome")
    manifest = manifest_with(text, {"column": "outcome", "positive": "left", "negative": "stayed", "delay_days": 1})
    columns = manifest.contract.columns
    assert {name: spec.kind for name, spec in columns.items()} == {
        "tenure, months": "number", "plan": "category", "zip": "category", "balance": "number", "größe": "number",
    }  # fmt: skip
    assert sorted(columns["plan"].values) == ["no", "null", "on", "yes"]
    assert columns["balance"].max_missing == 0.5
    assert {name: spec.kind for name, spec in manifest.contract.extras.items()} == {
        "joined": "timestamp",
        "note": "category",
    }
    assert "'empty' is left out" in text
    survey_sample(sample, tmp_path)  # lands the sample as a day would be
    found = validate(tmp_path / "landed.parquet", manifest, DAY, directory=tmp_path)
    assert found.refusal is None and found.quarantined == 0


def test_a_day_of_the_example_passes_the_contract_proposed_from_it(tmp_path: Path) -> None:
    shipped = manifests.load(manifests.DEFAULT_PATH)
    read_day(shipped, DAY).to_parquet(tmp_path / "day.parquet", index=False)
    manifest = manifest_with(proposal(tmp_path / "day.parquet", tmp_path), shipped.label.model_dump())
    assert set(manifest.contract.columns) == set(shipped.contract.columns)
    found = validate(tmp_path / "day.parquet", manifest, DAY, directory=tmp_path)
    assert found.refusal is None and found.quarantined == 0
    assert pq.read_metadata(found.accepted).num_rows == found.rows


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,y\n1,left\n1,stayed\n", "No column of the sample is unique and complete"),
        ("id,b\nA,1\nB,2\n", "no label column that could be guessed; name one of 'id', 'b' by LABEL="),
    ],
)
def test_a_sample_that_is_none_is_answered_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    sample = tmp_path / "day.csv"
    sample.write_text(content)
    assert main([str(sample)]) == 65
    sentence = capsys.readouterr().err
    assert told in sentence and sentence.count("\n") == 1


IDS = [
    ({"width_ch_1": [0.5, 1.5, 2.5], "booking": [11, 12, 13]}, "booking"),  # "id" inside a word is no id
    ({"booking": [3, 1, 2], "customerId": ["a", "b", "c"]}, "customerId"),
    ({"text": ["a", "b", "c"], "order_id": [7, 8, 9]}, "order_id"),
    ({"valid": [1, 2, 3], "name": ["a", "b", "c"]}, "name"),
]


@pytest.mark.parametrize(("columns", "chosen"), IDS)
def test_the_id_is_a_word_of_the_name_or_the_column_that_names_rows(
    tmp_path: Path, columns: dict[str, list[object]], chosen: str
) -> None:
    pd.DataFrame({**columns, "outcome": ["left", "stayed", "left"]}).to_csv(tmp_path / "day.csv", index=False)
    assert yaml.safe_load(proposal(tmp_path / "day.csv", tmp_path))["contract"]["id"] == chosen


def test_ranges_leave_room_and_keep_zero_as_an_end() -> None:
    assert (compute_lower_bound(0, 60), compute_upper_bound(0, 60)) == (0.0, 200.0)
    assert (compute_lower_bound(-3, 10.5), compute_upper_bound(-3, 10.5)) == (-20.0, 50.0)
    assert (compute_lower_bound(-5, -1), compute_upper_bound(-5, -1)) == (-10.0, 0.0)
    assert (compute_max_missing(0.01), compute_max_missing(0.3), compute_max_missing(0.9)) == (0.05, 0.6, 1.0)
