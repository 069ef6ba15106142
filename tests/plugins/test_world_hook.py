"""Where a task finds MLflow, S3 and PostgreSQL: the Connection first, the environment if there is none."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import AirflowFailException
from psycopg.conninfo import conninfo_to_dict

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from include.data.sources.base import POSTGRES_VARIABLE
from include.kernel.errors import RequestInvalid


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
    assert ConnectionsHook().find_mlflow_uri() == expected
    assert ConnectionsHook().build_environment()["MLFLOW_TRACKING_URI"] == expected


def test_without_a_connection_it_is_the_variable(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    assert ConnectionsHook().find_mlflow_uri() == "http://elsewhere:1"


def test_with_neither_the_task_fails_for_good_and_says_what_to_set():
    with pytest.raises(AirflowFailException, match="MLFLOW_TRACKING_URI is not set") as caught, translate_errors():
        ConnectionsHook().find_mlflow_uri()
    assert isinstance(caught.value.__cause__, RequestInvalid)


S3 = json.dumps(
    {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"endpoint_url": "http://minio:9000", "region_name": "eu-central-1"},
    }
)


def test_keys_of_the_s3_connection_replace_those_of_the_process_and_are_not_mixed_with_them(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_S3", S3)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    found = ConnectionsHook().build_environment()
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "ENDPOINT_URL_S3", "REGION")
    assert {f"AWS_{name}": found.get(f"AWS_{name}") for name in names} == {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": None,
        "AWS_ENDPOINT_URL_S3": "http://minio:9000",
        "AWS_REGION": "eu-central-1",
    }


def test_without_an_s3_connection_the_process_keeps_its_own_keys(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the machine")
    assert ConnectionsHook().build_environment()["AWS_ACCESS_KEY_ID"] == "of the machine"


def test_the_postgres_connection_becomes_one_libpq_string_for_a_pipeline_that_reads_from_it(monkeypatch, small):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    monkeypatch.setenv(
        "AIRFLOW_CONN_EVERGREEN_POSTGRES", "postgres://reader:p%27a%5C%20ss@db:5433/lending?sslmode=require"
    )
    small()
    assert POSTGRES_VARIABLE not in ConnectionsHook().build_environment()  # the replay needs no password
    small(source={"kind": "postgres", "table": "applications", "interval_column": "at"})
    assert conninfo_to_dict(ConnectionsHook().build_environment()[POSTGRES_VARIABLE]) == {
        "host": "db",
        "port": "5433",
        "user": "reader",
        "password": "p'a\\ ss",
        "dbname": "lending",
        "sslmode": "require",
    }
