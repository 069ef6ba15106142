"""What /feedback takes and what it refuses, and that the id of a row travels from a request to the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from include.manifest import DEFAULT_PATH
from include.serving.app import create_app
from include.serving.endpoints.feedback import parse_outcomes
from include.serving.exchange import Outcome, Problem
from include.serving.settings import Settings
from include.serving.wiring import open_service
from tests import credit
from tests.ground import write_manifest

NOW = datetime(2026, 8, 2, tzinfo=UTC)
GOOD = {"request_id": "r-1", "label": "bad"}


def read(content: Any) -> list[Outcome] | Problem:
    return parse_outcomes(json.dumps(content).encode(), ("bad", "good"), 10, NOW)


def test_outcomes_are_read_with_what_may_be_left_out() -> None:
    noon = datetime(2026, 8, 1, 12, tzinfo=UTC).timestamp() * 1e6
    assert read({"outcome": GOOD}) == [Outcome("r-1", 0, "bad", None)]
    sent = {**GOOD, "row": 3, "time": "2026-08-01T14:00:00+02:00"}
    assert read({"outcomes": [GOOD, sent]}) == [Outcome("r-1", 0, "bad", None), Outcome("r-1", 3, "bad", noon)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", None),
        ("request_id", ""),
        ("request_id", "r 1"),
        ("request_id", "r" * 65),
        ("request_id", 7),
        ("row", -1),
        ("row", 10),
        ("row", True),
        ("row", "0"),
        ("row", 0.0),
        ("label", "ugly"),
        ("label", None),
        ("label", ["bad"]),
        ("time", "yesterday"),
        ("time", "2026-08-01T12:00:00"),
        ("time", "2026-08-09T12:00:00Z"),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("time", 1785585600),
    ],
)
def test_a_field_that_is_not_right_is_named_with_its_row(field: str, value: Any) -> None:
    found = read({"outcomes": [GOOD, {**GOOD, field: value}]})
    assert isinstance(found, Problem)
    assert (found.status, found.row, found.field) == (422, 1, field)


@pytest.mark.parametrize("field", ["request_id", "row", "label", "time", "further"])
def test_what_was_sent_is_never_repeated(field: str) -> None:
    found = read({"outcome": {**GOOD, field: "Ada Lovelace!"}})
    assert isinstance(found, Problem) and "Ada" not in json.dumps(found.build_document())


@pytest.mark.parametrize(
    "content", [[], {}, {"outcomes": []}, {"outcomes": {}}, {"outcome": 1}, {"outcomes": [GOOD], "more": 1},
                {"outcomes": [{**GOOD, "name": "x"}]}, {"outcomes": [GOOD] * 11}],
)  # fmt: skip
def test_a_body_of_another_shape_is_refused(content: Any) -> None:
    assert isinstance(read(content), Problem)


@pytest.fixture
def client(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    stage("blue")
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("EVERGREEN_SNAPSHOTS", raising=False)
    manifest = write_manifest(tmp_path / "pipeline.yaml", {"serving.log": {"hash": ["Income"]}})
    settings = Settings(slot="blue", serving_dir=tmp_path, port=0, manifest=manifest, log_key="k" * 16)
    with TestClient(create_app(open_service(settings))) as asked:
        yield asked


def test_a_served_prediction_and_its_outcome_are_stored_at_shutdown(client: TestClient, tmp_path: Path) -> None:
    row = {**credit.rows()[0], "application_id": "A20260801-0003"}
    answer = client.post("/predict", json={"rows": [row, credit.rows()[1]]}, headers={"x-request-id": "r-7"})
    assert answer.status_code == 200, answer.text
    plain = client.post("/predict", json={"rows": [credit.rows()[0]]}).json()["predictions"][0]
    assert answer.json()["predictions"][0] == plain  # the id is no input
    told = client.post("/feedback", json={"outcome": {"request_id": "r-7", "row": 1, "label": "good"}})
    assert (told.status_code, told.json()) == (202, {"accepted": 1})
    assert client.post("/feedback", json={"outcome": {}}).status_code == 422
    assert 'evergreen_log_waiting_rows{slot="blue",stream="feedback"}' in client.get("/metrics").text
    client.__exit__()
    rows = pl.read_parquet(tmp_path / "store/predictions/*/*.parquet").sort("at", "row")
    assert rows["key"].to_list() == ["A20260801-0003", None, None]
    assert rows["score"][0] == plain["probability"] and len(rows["feature.Income"][0]) == 32
    outcome = pl.read_parquet(tmp_path / "store/feedback/*/*.parquet").to_dicts()[0]
    assert (outcome["request_id"], outcome["row"], outcome["label"]) == ("r-7", 1, "good")


def test_without_a_store_the_server_predicts_and_says_that_it_keeps_no_outcomes(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("blue")
    for name in ("EVERGREEN_STORE", "EVERGREEN_SNAPSHOTS"):
        monkeypatch.delenv(name, raising=False)
    client = TestClient(
        create_app(open_service(Settings(slot="blue", serving_dir=tmp_path, port=0, manifest=DEFAULT_PATH)))
    )
    assert client.post("/predict", json={"rows": credit.rows()[:1]}).status_code == 200
    refused = client.post("/feedback", json={"outcome": GOOD})
    assert refused.status_code == 409 and "keeps no prediction log" in refused.json()["error"]["message"]


def test_a_manifest_that_cannot_be_read_logs_nothing_since_it_cannot_say_what_to_hide(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("blue")
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    (tmp_path / "pipeline.yaml").write_text("serving: {log: {hide: [Income]}}")
    settings = Settings(slot="blue", serving_dir=tmp_path, port=0, manifest=tmp_path / "pipeline.yaml")
    assert open_service(settings).log is None
