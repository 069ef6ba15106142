"""Infra blessing: the artifact is loaded in the real server process, and what it costs there is measured.

A model that scores well and cannot be served is found here, before it is signed, and not by the first release. The
server is started by its command, as a process manager would start it, and asked over HTTP: this module knows neither
its code nor its framework. It starts while the caller goes on scoring, so that most of its two seconds cost nothing.

`setpriv` lets the kernel end the server when this process ends, kill -9 included; without it, an orphan would hold its
memory until somebody finds it. A server that turns an artifact down is an answer; one that ends by itself or is
late is not, since a machine that is busy, or out of memory or ports, says nothing about a model: the task retries.
"""

import json
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.gate.core.gate import InfraMeasurement
from include.gate.spec import GateManifest
from include.kernel.environment import ROOT
from include.kernel.errors import ServiceUnavailable
from include.kernel.files import write_atomic
from include.model.integrity.artifact_integrity import copy_verified
from include.model.row_groupings import list_groupings
from include.serving.words import slot_metrics
from include.serving.words.slot_files import ARTIFACTS, locate_artifact, locate_slot_file

log = logging.getLogger(__name__)
VERSION = "infra"  # what the server is told it serves; answers that say otherwise come from somebody else
REQUESTS = 300  # of one row each: the 99th percentile is then the third slowest
REQUESTS_TIMEOUT_S = 1.5  # for those requests; a slow model is asked fewer times
WARM_UP_REQUESTS = 5
MIB = 1024**2
ADDITIVITY_TOLERANCE = 1e-5  # of a probability; a network answers in single precision
SATURATED_LOG_ODDS = 30  # log-odds of a probability that is 0 or 1 to thirteen digits
PRIVATE_PREFIXES = ("AIRFLOW_", "MLFLOW_", "EVERGREEN_", "OTEL_")  # what a server on its own has no use for
INHERITED_VARIABLES = ("EVERGREEN_STACK", "EVERGREEN_MANIFEST")


class ValidationServer:
    """One model server that holds one artifact and answers this process alone."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, root: Path, digest: str) -> None:
        self._process = process
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False)
        self._root = root
        self._artifact = locate_artifact(root, digest)

    def measure(self, timeout_s: float, explain: bool = False) -> InfraMeasurement:
        """Waits up to `patience` seconds until the model is loaded, asks it the golden rows, then one row at a time;
        with `explain` also why.

        Raises `ServiceUnavailable` when the server does not live, or is late.
        """
        size = sum(path.stat().st_size for path in self._artifact.rglob("*") if path.is_file()) / MIB
        state = self._wait_for_state(timeout_s)
        if state["state"] != "loaded":
            return InfraMeasurement(size_mb=size, why=str(state.get("why")))
        golden = json.loads((self._artifact / "artifact.json").read_text())["golden"]
        try:
            parity, p99 = self._measure_parity(golden), self._measure_p99_ms([item["row"] for item in golden] or [{}])
            unexplained = self._find_unexplained(golden, timeout_s) if explain else None
            return InfraMeasurement(
                parity=parity, p99_ms=p99, rss_mb=self._read_rss(), size_mb=size, unexplained=unexplained
            )
        except httpx.HTTPError as error:
            return InfraMeasurement(size_mb=size, why=f"a row of its own got no prediction: {_describe_error(error)}")

    def _wait_for_state(self, timeout_s: float) -> dict[str, Any]:
        """What the server says of its model once it has tried to load it."""
        attempts = Retrying(
            stop=stop_after_delay(timeout_s),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda seen: seen is None),
            retry_error_callback=lambda _: None,
        )
        state = attempts(self._poll_model)
        if state is None:
            raise ServiceUnavailable(
                f"The model server held no model after {timeout_s:g} s (serving.ready_timeout_s); either this machine "
                "is busy or the model takes too long to load. The task retries by itself."
            )
        return state

    def _poll_model(self) -> dict[str, Any] | None:
        if self._process.poll() is not None:
            raise ServiceUnavailable(
                f"The model server ended with code {self._process.returncode} before it held the model; its last "
                f"line: {self._read_last_line()}. The task retries by itself."
            )
        try:
            description = self._http.get("/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        return description if description.get("version") == VERSION else None

    def _read_last_line(self) -> str:
        lines = (self._root / "server.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"

    def _measure_parity(self, golden: list[dict[str, Any]]) -> float | None:
        """The largest distance between a served probability and the one the training computed, in whatever company a
        row is asked; None without rows."""
        distances = [
            abs(served - float(item["probability"]))
            for asked in ([golden[position] for position in group] for group in list_groupings(len(golden)))
            for served, item in zip(self._ask([item["row"] for item in asked]), asked, strict=True)
        ]
        return max(distances, default=None)

    def _measure_p99_ms(self, rows: list[dict[str, Any]]) -> float:
        """99th percentile, in milliseconds, of requests of one row each, one after the other."""
        for row in rows[:WARM_UP_REQUESTS]:
            self._ask([row])
        took: list[float] = []
        deadline = time.monotonic() + REQUESTS_TIMEOUT_S
        while len(took) < REQUESTS and time.monotonic() < deadline:
            began = time.perf_counter()
            self._ask([rows[len(took) % len(rows)]])
            took.append((time.perf_counter() - began) * 1000)
        return sorted(took)[int(0.99 * (len(took) - 1))]

    def _find_unexplained(self, golden: list[dict[str, Any]], timeout_s: float) -> str | None:
        """Why a golden row is not explained; empty when all are and add up, None without golden rows."""
        problems = [self._check_explanation(item["row"], timeout_s) for item in golden]
        return next((problem for problem in problems if problem), "") if problems else None

    def _check_explanation(self, row: dict[str, Any], timeout_s: float) -> str:
        """An explainer that is starting says when to come again."""
        waiting = Retrying(
            stop=stop_after_delay(timeout_s),
            wait=wait_fixed(0.2),
            retry=retry_if_result(lambda answer: answer.status_code == 503),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        answer = waiting(self._http.post, "/predict-and-explain", json={"row": row}, timeout=timeout_s)
        if answer.status_code != 200:
            return f"{answer.status_code}, {answer.json()['error']['message']}"
        return _check_additivity(answer.json())

    def _ask(self, rows: list[dict[str, Any]]) -> list[float]:
        answer = self._http.post("/predict", json={"rows": rows}).raise_for_status()
        return [prediction["probability"] for prediction in answer.json()["predictions"]]

    def _read_rss(self) -> float | None:
        """Resident memory as the server itself reports it, MiB."""
        sample = re.search(rf"^{slot_metrics.RESIDENT} (\S+)$", self._http.get("/metrics").text, re.MULTILINE)
        return float(sample[1]) / MIB if sample else None

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(artifact: Path, digest: str, manifest: GateManifest) -> InfraMeasurement | None:
    """The whole of it, where the caller has nothing to do meanwhile; None when the manifest does not ask for it."""
    if manifest.gate.infra is None:
        return None
    with run_server(artifact, digest) as running:
        return running.measure(manifest.serving.ready_timeout_s, manifest.gate.infra.explain)


@contextmanager
def run_server(artifact: Path, digest: str) -> Iterator[ValidationServer]:
    """A model server that is loading `artifact`; it ends with the block. Raises `ArtifactRejected`: wrong digest."""
    with tempfile.TemporaryDirectory(prefix="evergreen-infra-") as scratch:
        root, port = Path(scratch), _find_free_port()
        copy_verified(artifact, root / ARTIFACTS, digest)
        slot = {"version": VERSION, "digest": digest, "generation": 0}
        write_atomic(locate_slot_file(root, "blue"), json.dumps(slot))
        with (root / "server.log").open("wb") as out:
            process = subprocess.Popen(
                _build_command(), env=_build_environment(root, port), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
        running = ValidationServer(process, port, root, digest)
        try:
            yield running
        finally:
            running.close()


def _build_command() -> list[str]:
    bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return [*bound, sys.executable, "-W", "ignore", "-m", "include.serving"]


def _build_environment(root: Path, port: int) -> dict[str, str]:
    """That of a slot, except that what is judged here cannot be blessed yet; the mark by which the stack finds what
    belongs to it travels on."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED_VARIABLES or not name.startswith(PRIVATE_PREFIXES)
    }
    settings = {"SLOT": "blue", "SERVING_DIR": str(root), "PORT": str(port), "BIND": "127.0.0.1", "UNBLESSED": "allow"}
    return inherited | {f"EVERGREEN_{name}": value for name, value in settings.items()}


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _check_additivity(answer: dict[str, Any]) -> str:
    """The client's own sum, where the answer is about the served probability (see
    include.model.explanation.attribution).
    """
    [prediction] = answer["predictions"]
    total, probability = prediction["base_value"] + sum(prediction["contributions"].values()), prediction["probability"]
    if answer["space"] == "log_odds":
        total = 1 / (1 + math.exp(-total)) if abs(total) < SATURATED_LOG_ODDS else float(total > 0)
    elif answer["space"] != "probability":
        return ""
    return "" if abs(total - probability) <= ADDITIVITY_TOLERANCE else f"the sum is {abs(total - probability):.2g} off"


def _describe_error(error: httpx.HTTPError) -> str:
    """The server's own sentence where it answered one."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return f"{error.response.status_code}, {error.response.json()['error']['message']}"
        except (ValueError, KeyError, TypeError):
            return str(error.response.status_code)
    return type(error).__name__
