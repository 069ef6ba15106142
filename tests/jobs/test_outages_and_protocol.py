"""What a job says when the world is not as it should be, and how it says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from include.kernel.errors import RequestInvalid, ServiceUnavailable
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, Intent, JobRequest
from tests import edge
from tests.ground import SMALL, free_ports, write_manifest
from tests.job_world import FIRST, LAST, publish

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("job", ["train", "evaluate", "monitor"])
def test_a_dead_mlflow_is_one_temporary_sentence_within_seconds(small, ask, monkeypatch, job):
    [closed] = free_ports(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed}")
    manifest = small()
    for number in range(4):
        publish(edge.store(), manifest, FIRST + timedelta(days=number))
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable) as caught:
        ask(job, run_id="r")
    assert time.monotonic() - began < 10
    assert str(caught.value).startswith(f"MLflow at http://127.0.0.1:{closed} does not answer; ")


def test_an_unknown_job_is_refused_with_those_there_are(small, ask):
    small()
    with pytest.raises(RequestInvalid, match="no job 'trian'; choose one of ingest, train"):
        ask("trian")


def as_process(place: Path, request: str | None, manifest: Path, **more: str) -> subprocess.CompletedProcess[str]:
    protocol = more | {
        RESULT_VARIABLE: str(place),
        "EVERGREEN_MANIFEST": str(manifest),
        "EVERGREEN_STORE": str(place.parent),
    }
    if request is not None:
        protocol[REQUEST_VARIABLE] = request
    command = [sys.executable, "-m", "include.jobs"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | protocol, capture_output=True, text=True, timeout=60)


REQUEST = JobRequest(
    job="ingest", run_key="k", as_of=LAST, intent=Intent.LIVE, params={"day": "2020-01-01"}
).model_dump_json()


class TestProtocol:
    @pytest.fixture
    def manifest(self, tmp_path):
        return write_manifest(tmp_path / "pipeline.yaml", SMALL)

    def test_a_typo_in_the_manifest_is_a_permanent_sentence_in_the_result_file(self, manifest, tmp_path):
        manifest.write_text(manifest.read_text().replace("window_days: 4", "windw_days: 4"))
        ended = as_process(tmp_path / "result.json", REQUEST, manifest)
        told = json.loads((tmp_path / "result.json").read_text())
        assert ended.returncode == 65
        assert told["kind"] == "ManifestInvalid"
        assert "train.windw_days is not a known setting; did you mean 'window_days'?" in told["error"]
        assert "Traceback" not in ended.stdout + ended.stderr

    @pytest.mark.parametrize(
        ("request_text", "told"),
        [
            (None, "No job request: set EVERGREEN_JOB_REQUEST"),
            ("{", "EVERGREEN_JOB_REQUEST: the document: Invalid JSON"),
            (REQUEST.replace('"protocol":1', '"protocol":2'), "EVERGREEN_JOB_REQUEST: protocol"),
        ],
    )
    def test_a_request_that_cannot_be_read_is_a_permanent_sentence(self, manifest, tmp_path, request_text, told):
        ended = as_process(tmp_path / "result.json", request_text, manifest)
        assert ended.returncode == 65
        assert told in json.loads((tmp_path / "result.json").read_text())["error"]

    def test_a_job_that_can_leave_nothing_still_says_its_sentence_and_ends_by_it(self, manifest):
        for request, code in ((None, 65), (REQUEST, 75)):
            ended = as_process(Path("/sys/nowhere/result.json"), request, manifest)  # not even root may
            assert (ended.returncode, ended.stderr) == (code, "")
            assert "result.json cannot be written" in ended.stdout
            assert (REQUEST_VARIABLE in ended.stdout) == (request is None)

    @pytest.mark.parametrize(
        "raised", ["RuntimeError('two\\nlines')", "BaseException('a panic')", "ZeroDivisionError()"]
    )
    def test_what_nobody_foresaw_is_one_sentence_in_a_result_of_its_own(self, manifest, tmp_path, raised):
        (tmp_path / "result.json").write_text('{"job": "train", "verdict": "yes"}')  # of the job before
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(
            "import include.data.sources.replay as replay\n"
            f"def fail(*given): raise {raised}\n"
            "replay.Replay.describe = fail\n"
        )
        path = f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}"
        ended = as_process(tmp_path / "result.json", REQUEST, manifest, PYTHONPATH=path)
        told = json.loads((tmp_path / "result.json").read_text())
        assert (ended.returncode, told["kind"]) == (70, "Unforeseen"), ended.stdout + ended.stderr
        assert told["error"].startswith(raised.partition("(")[0]) and "nobody foresaw this" in told["error"]
        assert "\n" not in told["error"] and "Traceback" in ended.stdout

    def test_a_killed_job_leaves_no_result_of_another(self, manifest, tmp_path):
        (tmp_path / "result.json").write_text('{"job": "train", "verdict": "yes"}')
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(
            "import os, signal, include.data.sources.replay as replay\n"
            "replay.Replay.describe = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        path = f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}"
        assert as_process(tmp_path / "result.json", REQUEST, manifest, PYTHONPATH=path).returncode == -9
        assert not (tmp_path / "result.json").exists()

    def test_a_result_is_a_file_and_exit_0_and_a_no_is_a_result(self, manifest, tmp_path):
        ended = as_process(tmp_path / "sub" / "result.json", REQUEST, manifest)
        told = json.loads((tmp_path / "sub" / "result.json").read_text())
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert (told["verdict"], told["run_key"]) == ("no", "k")
