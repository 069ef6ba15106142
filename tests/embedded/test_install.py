from __future__ import annotations

import re
import sys
import tomllib

import pytest

from include.embedded.configuration.settings import REPO
from include.embedded.install import Installation, torch_requirement
from include.embedded.lock import HEADER, images, portable, with_builds
from include.embedded.stack.heartbeat import CommandFailed, run


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


def test_a_lock_keeps_the_digests_of_what_it_keeps():
    text = portable("cuda-x==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nnumpy==2 \\\n    --hash=sha256:cc\n")
    assert text == "numpy==2 \\\n    --hash=sha256:cc\n"


def test_torch_may_be_the_build_of_the_index_or_the_one_without_cuda():
    other, own = "a" * 64, "b" * 64
    text = with_builds(f"torch==2 \\\n    --hash=sha256:{other}\nzipp==1\n", {"version": "2", "sha256": [own]})
    assert text == f"torch==2 \\\n    --hash=sha256:{other} \\\n    --hash=sha256:{own}\nzipp==1\n"


def test_a_torch_whose_digests_nobody_entered_is_refused():
    with pytest.raises(SystemExit, match=r"torch==3.*digests of 2.*torch-cpu"):
        with_builds("torch==3\n", {"version": "2", "sha256": []})


LOCKS = sorted(path.name for path in REPO.glob("requirements*.txt"))


def pins(name):
    return set(re.findall(r"^\w\S*==\S+", (REPO / name).read_text(), re.MULTILINE))


def test_there_is_a_lock_for_everything_and_one_for_each_image():
    names = {f"requirements.{name}.txt" for name in images(tomllib.loads((REPO / "pyproject.toml").read_text()))}
    assert set(LOCKS) == {"requirements.txt", "requirements.torch.txt", *names}


@pytest.mark.parametrize("name", LOCKS)
def test_the_committed_locks_are_portable_and_name_digests(name):
    text = (REPO / name).read_text()
    assert HEADER + portable(text) == text
    assert "file:" not in text and "find-links" not in text
    assert len(re.findall(r"^\w\S*==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)) == len(pins(name)) > 0


@pytest.mark.parametrize("name", ["requirements.job.txt", "requirements.server.txt"])
def test_the_image_locks_carry_no_airflow_and_agree_with_the_full_lock(name):
    assert not [line for line in pins(name) if line.startswith("apache-airflow")]
    assert pins(name) <= pins("requirements.txt")


def test_the_airflow_image_has_the_projects_versions_and_no_tools_of_development():
    ours, full = (dict(pin.split("==") for pin in pins(f"requirements{name}.txt")) for name in (".airflow", ""))
    assert {name for name in ours.keys() & full.keys() if ours[name] != full[name]} == set()
    assert not {"pytest", "mypy", "moto", "locust"} & ours.keys()
    assert {"asyncpg", "psycopg2-binary", "celery"} <= ours.keys() - full.keys()
