"""The locust file that ships, run as people run it, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from include.model import export
from tests import credit, ground
from tests.benchmarks import contestants, serving_model

LOCUST = [sys.executable, "-W", "ignore", "-m", "locust", "-f", "tests/benchmarks/locustfile.py", "--headless"]


@pytest.fixture
def staged(tmp_path: Path) -> contestants.Contestant:
    """The example's boosting model, compiled, blessed and staged."""
    (tmp_path / "artifact").mkdir()
    export.write(credit.trained("boosting"), tmp_path / "artifact", credit.rows()[:50])
    manifest = ground.write_manifest(tmp_path / "pipeline.yaml", {"name": "credit"})
    serving_model.stage(tmp_path / "artifact", tmp_path / "serving", manifest)
    return contestants.ours(tmp_path / "serving")


def test_a_hundred_users_of_every_dialect_for_ten_seconds_meet_no_failure(
    staged: contestants.Contestant, tmp_path: Path
) -> None:
    with contestants.started(staged, tmp_path, None) as server:
        told = ["-H", f"http://127.0.0.1:{server.port}", "-u", "100", "-r", "100", "-t", "10s", "--json"]
        done = subprocess.run([*LOCUST, *told], cwd=contestants.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert sum(each["num_failures"] for each in found.values()) == 0
    assert sum(each["num_requests"] for each in found.values()) > 500
    asked = {"/predict", "/predict (20 rows)", "/invocations", "/v2/models/{name}/infer", "/model"}
    assert found.keys() == asked | {"/predict-and-explain"}


def test_answers_that_are_no_predictions_are_failures_and_end_with_one(tmp_path: Path) -> None:
    floor = contestants.fastapi("noop", "noop", tmp_path)
    with contestants.started(floor, tmp_path, None) as server:
        told = ["-H", f"http://127.0.0.1:{server.port}", "-u", "5", "-r", "5", "-t", "2s", "--json"]
        done = subprocess.run([*LOCUST, *told], cwd=contestants.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found and all(each["num_failures"] == each["num_requests"] for each in found)
    assert "locust" not in sys.modules, "it patches sockets and threads of whoever imports it"


def test_without_a_server_it_says_what_to_do() -> None:
    told = ["-H", "http://127.0.0.1:9", "-u", "1", "-t", "1s"]
    done = subprocess.run([*LOCUST, *told], cwd=contestants.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Nothing answers at http://127.0.0.1:9 (ConnectError); start it with" in done.stderr
