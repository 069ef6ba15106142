from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from include.embedded.configuration import environment
from include.embedded.configuration.credentials import ensure_keys, load_credentials
from include.embedded.configuration.settings import PROGRAMS, REPO, EmbeddedSettings
from include.embedded.stack.programs import build_supervisor_port, list_programs
from include.embedded.stack.supervision import render_config
from include.model.blessing.blessing import compute_key_id, parse_private_key, parse_public_keys


def test_by_default_the_stack_lives_in_the_clone_and_listens_on_this_machine_only(monkeypatch):
    for name in ("HOME", "DAGS", "PROGRAMS"):
        monkeypatch.delenv(f"EVERGREEN_{name}", raising=False)
    settings = EmbeddedSettings()
    assert settings.home == REPO / ".evergreen"
    assert settings.programs == PROGRAMS
    assert settings.airflow_url.startswith("http://127.0.0.1:")


def test_every_field_is_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    monkeypatch.setenv("EVERGREEN_AIRFLOW_PORT", "18080")
    monkeypatch.setenv("EVERGREEN_PROGRAMS", '["mlflow", "envoy"]')
    settings = EmbeddedSettings()
    assert (settings.home, settings.airflow_url) == (tmp_path, "http://127.0.0.1:18080")
    assert [program.name for program in list_programs(settings, load_credentials(tmp_path))] == ["mlflow", "envoy"]


def test_the_host_cannot_be_changed(monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOST", "0.0.0.0")
    assert EmbeddedSettings().host == "127.0.0.1"


@pytest.mark.parametrize("name", ['a"b', "a'b", "a;b", "a #b"])
def test_a_home_the_process_manager_cannot_read_is_refused(name):
    with pytest.raises(ValidationError, match="use another"):
        EmbeddedSettings(home=Path("/tmp") / name)


@pytest.mark.parametrize("home", [REPO, REPO.parent, Path.home(), Path("/")])
def test_a_home_that_holds_more_than_the_stack_is_refused(home):
    with pytest.raises(ValidationError, match="a directory of its own"):
        EmbeddedSettings(home=home)


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path):
    first = load_credentials(tmp_path)
    assert load_credentials(tmp_path) == first
    assert len(first.jwt_secret) >= 64
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_the_signing_key_is_made_once_and_for_the_owner_alone(settings):
    ensure_keys(settings.signing_key, settings.trusted_keys)
    first = settings.signing_key.read_text()
    ensure_keys(settings.signing_key, settings.trusted_keys)
    assert settings.signing_key.read_text() == first
    assert stat.S_IMODE(settings.signing_key.stat().st_mode) == 0o600


def test_a_key_that_was_taken_away_is_replaced_and_the_old_one_stays_trusted(settings):
    for _ in range(2):
        ensure_keys(settings.signing_key, settings.trusted_keys)
        settings.signing_key.rename(settings.home / "old.pem")
    assert len(parse_public_keys(settings.trusted_keys.read_text())) == 2


def test_a_kill_between_the_two_files_is_made_good(settings):
    ensure_keys(settings.signing_key, settings.trusted_keys)
    settings.trusted_keys.unlink()
    ensure_keys(settings.signing_key, settings.trusted_keys)
    own = compute_key_id(parse_private_key(settings.signing_key.read_text()).public_key())
    assert set(parse_public_keys(settings.trusted_keys.read_text())) == {own}


def test_another_installations_variables_do_not_leak_in():
    kept = environment.inherit_env({"AIRFLOW__CORE__EXECUTOR": "x", "MLFLOW_TRACKING_URI": "y", "LANG": "C"})
    assert kept == {"LANG": "C"}


def test_what_a_task_compiles_is_kept_whatever_the_caller_prefers():
    assert environment.inherit_env({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}) == {"PYTHONUTF8": "1"}


def test_every_port_has_a_setting_that_moves_it(settings):
    every = EmbeddedSettings(**settings.model_dump() | {"programs": PROGRAMS})
    ports = [
        build_supervisor_port(every),
        *(p for each in list_programs(every, load_credentials(every.home)) for p in each.ports),
    ]
    named = {port.setting.removeprefix("EVERGREEN_").lower(): port.number for port in ports}
    assert named == {name: getattr(every, name) for name in EmbeddedSettings.model_fields if name.endswith("_port")}


def test_a_percent_sign_in_a_path_survives_the_process_managers_file(tmp_path):
    settings = EmbeddedSettings(home=tmp_path / "100%", programs=("envoy",))
    text = render_config(settings, load_credentials(tmp_path), list_programs(settings, load_credentials(tmp_path)))
    assert f"pidfile={tmp_path}/100%%/supervisord.pid" in text
