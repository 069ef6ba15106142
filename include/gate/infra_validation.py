"""Infra blessing: the artifact is loaded in the real server process, and what it costs there is measured.

A model that scores well and cannot be served is found here, before it is signed, and not by the first release. The
server is started by its command, as a process manager would start it, and asked over HTTP: this module knows neither
its code nor its framework. It starts while the caller goes on scoring, so that most of its two seconds cost nothing.

`setpriv` lets the kernel end the server when this process ends, kill -9 included; without it, an orphan would hold its
memory until somebody finds it. A server that turns an artifact down is an answer; one that ends by itself or is
late is not, since a machine that is busy, or out of memory or ports, says nothing about a model: the task retries.
"""

from __future__ import annotations

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

from include.gate.core.gate import InfraMeasured
from include.gate.spec import GateManifest
from include.kernel.environment import ROOT
from include.kernel.errors import ServiceUnavailable
from include.kernel.files import write_atomic
from include.model.integrity.artifact_integrity import copy_verified
from include.serving.words import slot_metrics
from include.serving.words.slot_files import ARTIFACTS, artifact_path, slot_path

log = logging.getLogger(__name__)
VERSION = "infra"  # what the server is told it serves; answers that say otherwise come from somebody else
REQUESTS = 300  # of one row each: the 99th percentile is then the third slowest
SECONDS = 1.5  # for those requests; a slow model is asked fewer times
WARM_UP = 5
MIB = 1024**2
ADDITIVE = 1e-5  # of a probability; a network answers in single precision
SATURATED = 30  # log-odds of a probability that is 0 or 1 to thirteen digits
PRIVATE = ("AIRFLOW_", "MLFLOW_", "EVERGREEN_", "OTEL_")  # what a server on its own has no use for
KEPT = ("EVERGREEN_STACK", "EVERGREEN_MANIFEST")


class Server:
    """One model server that holds one artifact and answers this process alone."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, root: Path, digest: str) -> None:
        self._process = process
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False)
        self._root = root
        self._artifact = artifact_path(root, digest)

    def measure(self, patience: float, explain: bool = False) -> InfraMeasured:
        """Waits up to `patience` seconds until the model is loaded, asks it the golden rows, then one row at a time;
        with `explain` also why.

        Raises `ServiceUnavailable` when the server does not live, or is late.
        """
        size = sum(path.stat().st_size for path in self._artifact.rglob("*") if path.is_file()) / MIB
        state = self._settled(patience)
        if state["state"] != "loaded":
            return InfraMeasured(size_mb=size, why=str(state.get("why")))
        golden = json.loads((self._artifact / "artifact.json").read_text())["golden"]
        try:
            parity, p99 = self._parity(golden), self._p99_ms([item["row"] for item in golden] or [{}])
            told = self._unexplained(golden, patience) if explain else None
            return InfraMeasured(parity=parity, p99_ms=p99, rss_mb=self._rss(), size_mb=size, unexplained=told)
        except httpx.HTTPError as error:
            return InfraMeasured(size_mb=size, why=f"a row of its own got no prediction: {_said(error)}")

    def _settled(self, patience: float) -> dict[str, Any]:
        """What the server says of its model once it has tried to load it."""
        attempts = Retrying(
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda seen: seen is None),
            retry_error_callback=lambda _: None,
        )
        state = attempts(self._look)
        if state is None:
            raise ServiceUnavailable(
                f"The model server held no model after {patience:g} s (serving.ready_timeout_s); either this machine "
                "is busy or the model takes too long to load. The task retries by itself."
            )
        return state

    def _look(self) -> dict[str, Any] | None:
        if self._process.poll() is not None:
            raise ServiceUnavailable(
                f"The model server ended with code {self._process.returncode} before it held the model; its last "
                f"line: {self._last_line()}. The task retries by itself."
            )
        try:
            seen = self._http.get("/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        return seen if seen.get("version") == VERSION else None

    def _last_line(self) -> str:
        lines = (self._root / "server.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"

    def _parity(self, golden: list[dict[str, Any]]) -> float | None:
        """The largest distance between a served probability and the one the training computed; None without rows."""
        if not golden:
            return None
        served = self._ask([item["row"] for item in golden])
        return max(abs(got - float(item["probability"])) for got, item in zip(served, golden, strict=True))

    def _p99_ms(self, rows: list[dict[str, Any]]) -> float:
        """99th percentile, in milliseconds, of requests of one row each, one after the other."""
        for row in rows[:WARM_UP]:
            self._ask([row])
        took: list[float] = []
        deadline = time.monotonic() + SECONDS
        while len(took) < REQUESTS and time.monotonic() < deadline:
            began = time.perf_counter()
            self._ask([rows[len(took) % len(rows)]])
            took.append((time.perf_counter() - began) * 1000)
        return sorted(took)[int(0.99 * (len(took) - 1))]

    def _unexplained(self, golden: list[dict[str, Any]], patience: float) -> str | None:
        """Why a golden row is not explained; empty when all are and add up, None without golden rows."""
        said = [self._why_not(item["row"], patience) for item in golden]
        return next((problem for problem in said if problem), "") if said else None

    def _why_not(self, row: dict[str, Any], patience: float) -> str:
        """An explainer that is starting says when to come again."""
        waiting = Retrying(
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.2),
            retry=retry_if_result(lambda answer: answer.status_code == 503),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        answer = waiting(self._http.post, "/predict-and-explain", json={"row": row}, timeout=patience)
        if answer.status_code != 200:
            return f"{answer.status_code}, {answer.json()['error']['message']}"
        return _missing_sum(answer.json())

    def _ask(self, rows: list[dict[str, Any]]) -> list[float]:
        answer = self._http.post("/predict", json={"rows": rows}).raise_for_status()
        return [prediction["probability"] for prediction in answer.json()["predictions"]]

    def _rss(self) -> float | None:
        """Resident memory as the server itself reports it, MiB."""
        found = re.search(rf"^{slot_metrics.RESIDENT} (\S+)$", self._http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) / MIB if found else None

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(artifact: Path, digest: str, manifest: GateManifest) -> InfraMeasured | None:
    """The whole of it, where the caller has nothing to do meanwhile; None when the manifest does not ask for it."""
    if manifest.gate.infra is None:
        return None
    with server(artifact, digest) as made:
        return made.measure(manifest.serving.ready_timeout_s, manifest.gate.infra.explain)


@contextmanager
def server(artifact: Path, digest: str) -> Iterator[Server]:
    """A model server that is loading `artifact`; it ends with the block. Raises `ArtifactRejected`: wrong digest."""
    with tempfile.TemporaryDirectory(prefix="evergreen-infra-") as scratch:
        root, port = Path(scratch), _free_port()
        copy_verified(artifact, root / ARTIFACTS, digest)
        slot = {"version": VERSION, "digest": digest, "generation": 0}
        write_atomic(slot_path(root, "blue"), json.dumps(slot))
        with (root / "server.log").open("wb") as out:
            process = subprocess.Popen(
                _command(), env=_environment(root, port), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
        made = Server(process, port, root, digest)
        try:
            yield made
        finally:
            made.close()


def _command() -> list[str]:
    bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    return [*bound, sys.executable, "-W", "ignore", "-m", "include.serving"]


def _environment(root: Path, port: int) -> dict[str, str]:
    """That of a slot, except that what is judged here cannot be blessed yet; the mark by which the stack finds what
    belongs to it travels on."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(PRIVATE)}
    told = {"SLOT": "blue", "SERVING_DIR": str(root), "PORT": str(port), "BIND": "127.0.0.1", "UNBLESSED": "allow"}
    return kept | {f"EVERGREEN_{name}": value for name, value in told.items()}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _missing_sum(answer: dict[str, Any]) -> str:
    """The client's own sum, where the answer is about the served probability (see
    include.model.explanation.attribution).
    """
    [told] = answer["predictions"]
    total, probability = told["base_value"] + sum(told["contributions"].values()), told["probability"]
    if answer["space"] == "log_odds":
        total = 1 / (1 + math.exp(-total)) if abs(total) < SATURATED else float(total > 0)
    elif answer["space"] != "probability":
        return ""
    return "" if abs(total - probability) <= ADDITIVE else f"the sum is {abs(total - probability):.2g} off"


def _said(error: httpx.HTTPError) -> str:
    """The server's own sentence where it answered one."""
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return f"{error.response.status_code}, {error.response.json()['error']['message']}"
        except (ValueError, KeyError, TypeError):
            return str(error.response.status_code)
    return type(error).__name__
