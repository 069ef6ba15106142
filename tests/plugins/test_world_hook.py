"""Where a task finds MLflow: the Connection first, the environment if there is none."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from evergreen.errors import as_airflow
from evergreen.hooks.world import WorldHook
from include.core.errors import RequestInvalid


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("http://mlflow.example:5001", "http://mlflow.example:5001"),
        ("https://mlflow.example:443", "https://mlflow.example:443"),
        ('{"conn_type": "http", "host": "mlflow", "port": 5000}', "http://mlflow:5000"),
    ],
)
def test_the_connection_says_where_it_is(monkeypatch, connection, expected):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", connection)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    assert WorldHook().mlflow_uri() == expected
    assert WorldHook().environment()["MLFLOW_TRACKING_URI"] == expected


def test_without_a_connection_it_is_the_variable(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    assert WorldHook().mlflow_uri() == "http://elsewhere:1"


def test_with_neither_the_task_fails_for_good_and_says_what_to_set():
    with pytest.raises(AirflowFailException, match="MLFLOW_TRACKING_URI is not set") as caught, as_airflow():
        WorldHook().mlflow_uri()
    assert isinstance(caught.value.__cause__, RequestInvalid)
