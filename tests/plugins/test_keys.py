"""Where a task finds the keys: in two Airflow Connections, and nowhere else."""

from __future__ import annotations

import json

import pytest

from evergreen.hooks.connections import ConnectionsHook
from include.embedded.configuration.credentials import Credentials, ensure_keys
from include.embedded.configuration.environment import build_airflow_env
from include.embedded.configuration.settings import EmbeddedSettings
from include.kernel.errors import KeyInvalid, NotBlessed
from include.model.blessing.blessing import render_private_pem, render_public_pem
from tests.blessed import KEY, OTHER_KEY, document, envelope, keyid


def test_a_connection_holds_a_key_as_its_password(monkeypatch):
    put(monkeypatch, "SIGNER", password=render_private_pem(KEY))
    put(monkeypatch, "TRUST", password=render_public_pem(KEY) + render_public_pem(OTHER_KEY))
    assert keyid(ConnectionsHook().read_signing_key()) == keyid(KEY)
    assert set(ConnectionsHook().read_trusted_keys()) == {keyid(KEY), keyid(OTHER_KEY)}


def test_the_embedded_stacks_connections_name_the_files_it_made(monkeypatch, tmp_path):
    settings = EmbeddedSettings(home=tmp_path / "a home with %41 & spaces")
    ensure_keys(settings.signing_key, settings.trusted_keys)
    for name, value in build_airflow_env(settings, Credentials()).items():
        if name.startswith("AIRFLOW_CONN_"):
            monkeypatch.setenv(name, value)
    assert keyid(ConnectionsHook().read_signing_key()) in ConnectionsHook().read_trusted_keys()


def test_no_job_is_told_where_the_signing_key_is(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    put(monkeypatch, "SIGNER", password=render_private_pem(KEY))
    assert "AIRFLOW_CONN_BLESSING_SIGNER" not in ConnectionsHook().build_environment()


def test_without_trusted_keys_nothing_is_deployed():
    with pytest.raises(KeyInvalid, match="no Airflow Connection blessing_trust"):
        ConnectionsHook().verify_blessing("7", envelope(document()))


def test_a_key_file_that_cannot_be_read_is_named_with_its_connection(monkeypatch, tmp_path):
    put(monkeypatch, "SIGNER", extra={"path": str(tmp_path / "gone.pem")})
    with pytest.raises(KeyInvalid, match=r"gone\.pem of the Airflow Connection blessing_signer cannot be read"):
        ConnectionsHook().read_signing_key()


def test_a_blessing_is_believed_by_the_keys_of_the_connection_alone(monkeypatch):
    put(monkeypatch, "TRUST", password=render_public_pem(OTHER_KEY))
    with pytest.raises(NotBlessed, match="is blessed by key"):
        ConnectionsHook().verify_blessing("7", envelope(document()))
    signed = envelope(document(), OTHER_KEY)
    assert ConnectionsHook().verify_blessing("7", signed).version == "7"


def put(monkeypatch, name, **fields):
    monkeypatch.setenv(f"AIRFLOW_CONN_BLESSING_{name}", json.dumps({"conn_type": "generic", **fields}))
