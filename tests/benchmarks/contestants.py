"""Every server of bench-serving: how it is started, asked, and read. All get the same core and one worker each.

Each runs as its own documentation says, in files a person can read (peers/). BentoML and LitServe live in an
environment of their own, made once from peers/requirements.txt and kept in the user's cache: their pins are not ours.

All servers are up for the whole run, since starting one takes longer than measuring it. Who is not measured is stopped
by SIGSTOP, children too: a server that polls its queues would cost the one beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ground import free_ports
from tests.load import Plan

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evergreen" / "bench-peers"
PATIENCE_S = 90.0
GRACE_S = 15.0
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Row = dict[str, Any]
Reads = Callable[[Any], float]


@dataclass(frozen=True)
class Contestant:
    """`command` may hold {port} and {python} (the peers' environment); `ask` makes a body, `read` a probability.

    `residual` is how far an explanation is from adding up to the log-odds of its probability.
    """

    name: str
    command: tuple[str, ...]
    path: str
    ask: Callable[[Row], dict[str, Any]]
    read: Reads
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/health"
    residual: Reads | None = None
    root: Path = ROOT  # the checkout it runs from

    def plan(self, port: int, rows: Sequence[Row], **more: Any) -> Plan:
        bodies = [json.dumps(self.ask(row), separators=(",", ":")).encode() for row in rows]
        return Plan(f"http://127.0.0.1:{port}{self.path}", bodies, **more)


def _rows(row: Row) -> dict[str, Any]:
    return {"rows": [row]}


def _split(row: Row) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}


def _probability(answer: Any) -> float:
    return float(answer["predictions"][0]["probability"])


def ours(serving: Path, name: str = "ours", path: str = "/predict", read: Reads = _probability) -> Contestant:
    """As a slot runs: the shipped command, with manifest, trusted key and a place for the prediction log."""
    told = {
        "SLOT": "blue",
        "SERVING_DIR": str(serving),
        "PORT": "{port}",
        "MANIFEST": str(serving / "pipeline.yaml"),
        "TRUSTED_KEYS_FILE": str(serving / "trusted.pem"),
        "STORE": str(serving / "store"),
    }
    command = (sys.executable, "-W", "ignore", "-m", "include.serving")
    return Contestant(name, command, path, _rows, read, {f"EVERGREEN_{k}": v for k, v in told.items()}, "/ready")


def fastapi(name: str, app: str, pipeline: Path, path: str = "/predict") -> Contestant:
    quiet = ("--no-access-log", "--log-level", "warning")
    start = (sys.executable, "-W", "ignore", "-m", "uvicorn", "--factory", f"fastapi_servers:{app}")
    command = (*start, "--app-dir", str(PEERS), "--port", "{port}", *quiet)
    environment = {"PIPELINE": str(pipeline)}
    return Contestant(name, command, path, _rows, lambda a: a["probabilities"][0], environment, "/openapi.json")


def explaining(serving: Path) -> Contestant:
    """Ours on /predict-and-explain, a server of its own: its explainer is another process."""
    return replace(ours(serving, "ours explain", "/predict-and-explain"), residual=_residual)


def _residual(answer: Any) -> float:
    [found] = answer["predictions"]
    assert answer["space"] == "log_odds", answer["space"]
    return _apart(found["probability"], found["base_value"], found["contributions"])


def naive_explaining(pipeline: Path) -> Contestant:
    return replace(fastapi("naive explain", "explain", pipeline, "/explain"), residual=_naive_residual)


def _naive_residual(answer: Any) -> float:
    return _apart(answer["probabilities"][0], answer["base"], answer["contributions"][0])


def _apart(probability: float, base: float, contributions: Mapping[str, float]) -> float:
    return abs(math.log(probability / (1 - probability)) - base - sum(contributions.values()))


def mlflow(model: Path) -> Contestant:
    """As its own documentation serves a model on one machine; a row a request, by column name."""
    start = (str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(model))
    command = (*start, "--env-manager", "local", "-w", "1", "-p", "{port}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it starts `uvicorn` by name
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    return Contestant("mlflow", command, "/invocations", _split, lambda a: a["predictions"][0][1], environment, "/ping")


def bentoml(pipeline: Path, home: Path) -> Contestant:
    start = ("{python}", "-m", "bentoml", "serve", "bentoml_service:Scores", "--working-dir", str(PEERS))
    command = (*start, "--host", "127.0.0.1", "--port", "{port}")
    environment = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(home), "PIPELINE": str(pipeline)}
    return Contestant("bentoml", command, "/predict", _rows, lambda a: a[0], environment, "/readyz")


def litserve(pipeline: Path) -> Contestant:
    command = ("{python}", str(PEERS / "litserve_server.py"), "{port}")
    environment = {"PIPELINE": str(pipeline)}
    return Contestant("litserve", command, "/predict", lambda r: {"row": r}, lambda a: a["probability"], environment)


class Running:
    """A server of the bench on its port, with all processes it started."""

    def __init__(self, contestant: Contestant, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.contestant, self.port, self._process, self._log = contestant, port, process, log
        self._began = time.monotonic()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self.ready_s = float("nan")

    def await_ready(self) -> None:
        """Polls the server's own readiness; `ready_s` is the time from the start of its process."""
        while time.monotonic() - self._began < PATIENCE_S and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                if self.http.get(self.contestant.ready).status_code == httpx.codes.OK:
                    self.ready_s = time.monotonic() - self._began
                    return
            time.sleep(0.01)
        said = self._log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"{self.contestant.name} did not become ready; it said:\n{said}")

    def await_answer(self, row: Row) -> None:
        """Until a first row is answered: an explainer starts with its first question."""
        deadline = time.monotonic() + PATIENCE_S
        while (answer := self.http.post(self.contestant.path, json=self.contestant.ask(row))).status_code == 503:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.contestant.name} answers nothing but {answer.text}")
            time.sleep(0.2)

    def cpu_s(self) -> float:
        """CPU seconds so far of the server and all its children."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def rss_mb(self) -> float:
        """Resident memory of the process that was started, without its children."""
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def freeze(self) -> None:
        """No CPU until `thaw`, also not for timers and polls."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        self.http.close()
        self.thaw()
        found = self._processes()
        self._process.terminate()
        _, left = psutil.wait_procs(found, timeout=GRACE_S)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes():
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)


@contextmanager
def started(contestant: Contestant, room: Path, cpu: int | None) -> Iterator[Running]:
    """A running server, bound to core `cpu`; it ends with the block, and so do its children."""
    port = free_ports(1)[0]
    log = room / f"{contestant.name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*_bound(cpu), *(part.format(port=port, python=CACHE / "bin" / "python") for part in contestant.command)],
            cwd=contestant.root,
            env=_environment(contestant, port),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Running(contestant, port, process, log)
    try:
        running.await_ready()
        yield running
    finally:
        running.end()


def _bound(cpu: int | None) -> list[str]:
    return [] if cpu is None else ["taskset", "-c", str(cpu)]


def _environment(contestant: Contestant, port: int) -> dict[str, str]:
    own = {name: value.format(port=port) for name, value in contestant.environment.items()}
    return {**os.environ, **THREADS, **own}


def cores() -> tuple[int | None, int | None]:
    """One core for the server and one for the client; without two, or on another system, nobody is bound."""
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (found[0], found[-1]) if len(found) > 1 and shutil.which("taskset") else (None, None)


def install_peers() -> None:
    """The peers' environment; nothing is done when it stands as the lock file says."""
    lock, stamp = PEERS / "requirements.txt", CACHE / ".installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing BentoML and LitServe into {CACHE}", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    uv, python = str(Path(sys.executable).with_name("uv")), str(CACHE / "bin" / "python")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(CACHE)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", str(lock)], check=True)
    stamp.write_text(wanted)
