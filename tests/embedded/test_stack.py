"""Real processes: supervisord and Envoy, on ports of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from include.embedded.configuration.environment import STACK_VARIABLE
from include.embedded.stack import strays
from include.embedded.stack.errors import StackError
from include.embedded.stack.supervision import Supervisor
from include.release.core.rollout import Route
from include.release.targets.local.envoy_routes import parse, render


def pid(stack):
    return stack().list_parts()[0].pid


def supervisor_pid(settings):
    return int(settings.supervisor_pid.read_text())


def test_up_twice_changes_nothing_and_down_leaves_nothing(stack, settings, printed):
    stack().start()
    first = pid(stack)
    stack().start()
    assert pid(stack) == first
    stack().stop()
    assert strays.find(settings.home) == []
    assert printed.getvalue().splitlines()[-1] == "0 processes left"


def test_a_shell_that_takes_over_the_environment_is_no_stray(stack):
    seen = stack().build_env()
    assert STACK_VARIABLE not in seen
    assert seen["MLFLOW_TRACKING_URI"] == seen["EVERGREEN_MLFLOW_URL"]


def test_reset_forgets_everything(stack, settings):
    stack().start()
    stack().reset()
    assert not settings.home.exists()
    assert strays.find(settings.home) == []


def test_down_is_harmless_when_nothing_runs(stack, printed):
    stack().stop()
    assert "0 processes left" in printed.getvalue()


def test_down_after_the_process_manager_was_killed_leaves_nothing(stack, settings):
    stack().start()
    os.kill(supervisor_pid(settings), signal.SIGKILL)
    assert strays.find(settings.home), "Envoy is orphaned; without one this test would prove nothing"
    stack().stop()
    assert strays.find(settings.home) == []


def test_up_after_the_process_manager_was_killed_removes_the_orphans_first(stack, settings, printed):
    stack().start()
    orphan = pid(stack)
    os.kill(supervisor_pid(settings), signal.SIGKILL)
    stack().start()
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert "left over from an earlier run" in printed.getvalue()
    assert pid(stack) != orphan


def test_up_starts_what_was_stopped_and_leaves_the_process_manager_alone(stack, settings):
    stack().start()
    before = supervisor_pid(settings)
    stack().supervisor.rpc.stopProcess("envoy")
    assert stack().list_parts()[0].missing == "is stopped"
    stack().start()
    assert stack().list_parts()[0].missing is None
    assert supervisor_pid(settings) == before


def test_up_waits_for_what_is_just_being_stopped_and_starts_it_again(stack, settings):
    stack().start()
    os.kill(pid(stack), signal.SIGSTOP)  # it cannot obey, and is killed after its patience
    stack().supervisor.rpc.stopProcess("envoy", False)
    assert stack().supervisor.read_statuses()["envoy"].state == "STOPPING"
    stack().start()
    assert stack().list_parts()[0].missing is None


def test_the_route_survives_down_and_up(stack, settings):
    stack().start()
    settings.route_file.write_text(render(Route(live="green", generation=7)))
    stack().stop()
    stack().start()
    assert parse(settings.route_file.read_text()) == Route(live="green", generation=7)


def test_without_a_live_model_callers_are_told_so(stack, settings):
    stack().start()
    answer = httpx.post(f"{settings.serving_url}/predict", json={}, trust_env=False)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-evergreen-generation"] == "0"
    assert "No model is live" in answer.json()["detail"]


def test_a_taken_port_is_one_sentence_and_nothing_is_started(stack, settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.serving_port))
        other.listen()
        with pytest.raises(StackError) as caught:
            stack().start()
    assert str(caught.value) == (
        f"Port {settings.serving_port} (predictions) is taken; "
        "set EVERGREEN_SERVING_PORT to a free one and run `make up` again."
    )
    assert strays.find(settings.home) == []


def test_a_program_that_keeps_dying_ends_the_wait_with_its_own_last_words(stack, settings, monkeypatch):
    broken = stack()
    monkeypatch.setattr(
        broken, "_render_files", lambda made=broken._render_files: made() | {settings.envoy_config: "nonsense: true"}
    )
    with pytest.raises(StackError, match=r"envoy keeps dying[\s\S]*nonsense"):
        broken.start()


def test_a_changed_setting_restarts_the_stack(stack, settings, printed):
    stack().start()
    before = supervisor_pid(settings)
    settings.supervisor_config.write_text(settings.supervisor_config.read_text() + "\n")
    stack().start()
    assert supervisor_pid(settings) != before
    assert "restarting" in printed.getvalue()


def test_another_homes_process_manager_is_not_taken_for_ours(stack, settings, tmp_path):
    stack().start()
    stranger = stack().secret.model_copy(update={"supervisor_password": "wrong"})
    assert not Supervisor(settings, stranger).is_alive


def test_strays_are_found_by_their_home_and_stopped_even_when_they_refuse(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    mine, other = (
        subprocess.Popen([sys.executable, "-c", stubborn], env={STACK_VARIABLE: str(home)}, stdout=subprocess.PIPE)
        for home in (tmp_path / "mine", tmp_path / "other")
    )
    mine.stdout.readline(), other.stdout.readline()
    try:
        assert [found.pid for found in strays.find(tmp_path / "mine")] == [mine.pid]
        assert strays.clear(tmp_path / "mine", grace=0.3) == 0
        assert mine.wait(1) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_command_run_from_within_the_stack_does_not_stop_itself(tmp_path):
    code = (
        "from pathlib import Path; from include.embedded.stack import strays; "
        f"print(strays.clear(Path({str(tmp_path)!r})))"
    )
    started = time.monotonic()
    env = os.environ | {STACK_VARIABLE: str(tmp_path), "PYTHONPATH": os.getcwd()}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout.strip()) == (0, "0")
    assert time.monotonic() - started < 10
