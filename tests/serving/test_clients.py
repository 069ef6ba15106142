"""Clients of other servers against a running one of ours, unchanged: MLflow's, Triton's, and nobody's at all."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from tests import credit, fuzzing
from tests.model_server import ROOT, model_server

ROWS = credit.rows()[:9]
EXPECTED = pytest.approx(credit.trained("boosting").predict_proba(ROWS), abs=1e-6)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def mlflow_client(url: str) -> ScoringServerClient:
    client = ScoringServerClient("127.0.0.1", url.rpartition(":")[2])
    client.wait_server_ready(timeout=20)
    return client


@pytest.fixture(scope="module")
def triton(url: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.triton_calls", url.removeprefix("http://")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_mlflows_client_scores_a_data_frame_with_missing_values(mlflow_client: ScoringServerClient) -> None:
    table = credit.data().head(len(ROWS)).drop(columns=credit.LABEL)
    missing = credit.data()[credit.data().isna().any(axis=1)].head(5).drop(columns=credit.LABEL)
    assert mlflow_client.invoke(table).get_predictions("ndarray").tolist() == EXPECTED
    predicted = mlflow_client.invoke(missing).get_predictions()
    assert isinstance(predicted, pd.DataFrame) and len(predicted) == 5


def test_mlflows_client_is_told_why_a_data_frame_is_refused(mlflow_client: ScoringServerClient) -> None:
    table = credit.data().head(2).drop(columns=[credit.LABEL, "Amount"])
    with pytest.raises(Exception, match=r"error code 422.*Amount must be given"):
        mlflow_client.invoke(table)


def test_mlflows_client_reads_the_version(mlflow_client: ScoringServerClient) -> None:
    import mlflow

    assert mlflow_client.get_version() == mlflow.__version__


def test_tritons_client_finds_server_and_model(triton: dict[str, Any]) -> None:
    assert triton["live"] and triton["ready"] and triton["model_ready"] and not triton["other_model_ready"]
    assert triton["server"]["extensions"] == ["binary_tensor_data"]
    assert [each["name"] for each in triton["model"]["inputs"]] == [column.name for column in credit.columns()]


@pytest.mark.parametrize("form", ["binary", "json", "mixed"])
def test_tritons_client_infers_from_arrays(form: str, triton: dict[str, Any]) -> None:
    told = triton[form]
    assert told["types"] == {"probability": "float64", "label": "object", "decision": "bool"}
    assert told["probability"] == EXPECTED
    assert told["label"] == ["bad" if each else "good" for each in told["decision"]]
    assert (told["model_name"], told["model_version"], told["id"]) == ("credit", "3", "r-9")


def test_tritons_client_is_told_row_and_field(triton: dict[str, Any]) -> None:
    says = "At row 1, field Amount: Amount must be a finite number that fits into 64 bits."
    assert triton["refused"] == ["422", says]


def test_what_the_document_allows_is_answered_and_what_it_forbids_is_refused(url: str) -> None:
    tally = fuzzing.Tally()
    fuzzing.by_document(url, 10, tally)
    assert tally.cases >= 80


def test_no_damage_to_a_body_makes_the_server_fail(url: str) -> None:
    tally = fuzzing.Tally()
    fuzzing.by_damage(url, 60, tally)
    assert tally.cases >= 8 * 60 and {"200", "400", "415", "422"} == set(tally.statuses())
