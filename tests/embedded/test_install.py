from __future__ import annotations

import sys

import pytest

from include.embedded.heartbeat import CommandFailed, run
from include.embedded.install import Installation, torch_requirement
from include.embedded.lock import portable
from include.embedded.settings import REPO


def test_a_long_command_is_never_silent(tmp_path):
    said: list[str] = []
    seconds = run(
        "Sleep", [sys.executable, "-c", "import time; time.sleep(0.7)"], tmp_path / "log", said.append, every=0.2
    )
    assert len(said) >= 2
    assert all(line.startswith("Sleep: ") and line.endswith(" s") for line in said)
    assert seconds >= 0.7


def test_a_failing_command_shows_the_end_of_its_own_output(tmp_path):
    log = tmp_path / "log"
    log.write_text("what an earlier command said\n")
    with pytest.raises(CommandFailed, match="exit code 3") as caught:
        run("Break", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], log, print)
    assert "the reason" in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_torch_comes_first_and_by_pip_from_the_index_one_names():
    steps = dict(Installation().steps({"TORCH_INDEX": "https://example.org/cpu"}))
    assert list(steps) == ["Virtual environment", "uv", "torch", "Everything else"]
    assert steps["torch"][-3:-1] == ["--index-url", "https://example.org/cpu"]
    assert steps["torch"][-1].startswith("torch==")


def test_an_installation_is_current_until_the_lock_changes(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / "requirements.txt").write_text("torch==1\n")
    installation = Installation(tmp_path)
    assert not installation.is_current
    installation.stamp.write_text(installation.wanted)
    assert installation.is_current
    (tmp_path / "requirements.txt").write_text("torch==2\n")
    assert not installation.is_current


def test_a_lock_without_torch_says_what_to_do():
    with pytest.raises(SystemExit, match="make lock"):
        torch_requirement("numpy==1\n")


def test_a_lock_names_no_local_build_and_no_graphics_card():
    text = portable("nvidia-cublas==13\nnumpy==2.4.6\ntorch==2.13.0+cpu\ntriton==3 ; sys_platform == 'linux'\n")
    assert text == "numpy==2.4.6\ntorch==2.13.0\n"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.job.txt", "requirements.server.txt"])
def test_the_committed_locks_are_portable(name):
    text = (REPO / name).read_text()
    assert portable(text) == text
    assert "file:" not in text and "find-links" not in text


@pytest.mark.parametrize("name", ["requirements.job.txt", "requirements.server.txt"])
def test_the_image_locks_carry_no_airflow_and_agree_with_the_full_lock(name):
    slim, full = ((REPO / each).read_text().splitlines() for each in (name, "requirements.txt"))
    assert not [line for line in slim if line.startswith("apache-airflow")]
    assert {line for line in slim if "==" in line} <= set(full)
