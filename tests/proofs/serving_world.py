"""What the cases of `make prove-serving` share: models on a shelf, and real server processes that hold them.

A server here is `python -m include.serving` with a place, a port and a log of its own, told everything by its
environment, with a blessing that a key it trusts has signed. The same server can be started with one of its guards
switched off (see serving_entry), which is how the proof shows that a case would notice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from include.model import artifact
from include.model.artifact import ServableModel
from include.model.blessing.blessing import compute_envelope_digest, render_public_pem
from include.model.compiled import compiling
from tests import blessed, credit, load
from tests.ground import SMALL, free_ports, wait_for, write_manifest
from tests.load import Plan, Result
from tests.proofs.outcomes import Outcomes, must

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "canary-token-5ad0c1"  # of the administrator; no output may ever hold it
CANARY = "canary-value-9f27e3"  # in cells, names and headers; no answer and no log may repeat it
MIB = 1 << 20
FOREIGN = ("AIRFLOW_", "AWS_", "EVERGREEN_", "MLFLOW_", "OTEL_")
KINDS = ("compiled", "generic")


class Server:
    """One model server with a place of its own; it may be started, killed and started again."""

    def __init__(self, home: Path, without: str = "", serving: Mapping[str, Any] | None = None, **told: str) -> None:
        self.home, self.without, self.told = home, without, dict(told)
        self.place, self.log_file = home / "serving", home / "log"
        self.place.mkdir(parents=True)
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        changes = {f"serving.{name}": value for name, value in (serving or {}).items()}
        self.manifest = write_manifest(home / "pipeline.yaml", SMALL | changes)
        # dozens of threads share it, and the pool may close a connection it finds surplus while another thread takes it
        kept = httpx.Limits(max_keepalive_connections=None, keepalive_expiry=None)
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=30, limits=kept)
        self.process: subprocess.Popen[bytes] | None = None

    def stage(self, source: Path, version: str = "1", **changes: Any) -> str:
        """As a release lays it out: the artifact by its digest, a signed blessing, and the slot's file."""
        digest = artifact.compute_digest(source)
        shutil.copytree(source, self.place / "artifacts" / digest, dirs_exist_ok=True, symlinks=True)
        envelope = blessed.envelope(blessed.document(model="credit", version=version, digest=digest))
        paper = compute_envelope_digest(envelope)
        (self.place / "blessings").mkdir(exist_ok=True)
        (self.place / "blessings" / f"{paper}.json").write_text(envelope)
        self.write_slot(**{"version": version, "digest": digest, "generation": 1, "blessing": paper, **changes})
        return digest

    def write_slot(self, **content: Any) -> None:
        (self.place / "slots").mkdir(exist_ok=True)
        (self.place / "slots" / "blue.json").write_text(json.dumps(content))

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {
            **kept,
            "EVERGREEN_SLOT": "blue",
            "EVERGREEN_SERVING_DIR": str(self.place),
            "EVERGREEN_PORT": str(self.port),
            "EVERGREEN_MANIFEST": str(self.manifest),
            "EVERGREEN_TRUSTED_KEYS": render_public_pem(blessed.KEY),
            "EVERGREEN_SERVING_TOKEN": TOKEN,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
            "NO_PROXY": "127.0.0.1",
            **self.told,
        }

    def start(self) -> Server:
        """Returns when it answers /health; whether it is ready is the case's own question."""
        module = ["tests.proofs.serving_entry", self.without] if self.without else ["include.serving"]
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-W", "ignore", "-m", *module]
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment(), stdout=log, stderr=log)
        process = self.process
        wait_for(lambda: process.poll() is not None or self.http.get("/health").status_code == 200)
        must(process.poll() is None, f"did not start: {self.log()[-600:]}")
        return self

    def serving(self, source: Path) -> Server:
        """Staged, started and ready."""
        self.stage(source)
        self.start()
        ready = self.http.get("/ready")
        must(ready.status_code == 200, f"is not ready: {ready.text}")
        return self

    def stop(self, how: int = signal.SIGKILL, seconds: float = 30) -> int:
        """Ends it, and gives its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(seconds)

    def end(self) -> None:
        self.http.close()
        if self.process and self.process.poll() is None:
            self.stop()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.http.get("/metrics").text.splitlines()
        mine = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in mine if all(each in line for each in wanted))

    def rss_mib(self) -> float:
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20


@dataclass
class Proof(Outcomes):
    """The shelf of models, the servers that are running, and the outcomes of the cases."""

    home: Path = field(kw_only=True)
    without: str = ""  # the guard that every server of this proof is started without
    running: ExitStack = field(default_factory=ExitStack)
    servers: list[Server] = field(default_factory=list)
    _places: int = 0
    _shared: dict[str, Server] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self) -> None:
        """The same boosted trees in both forms."""
        model = credit.trained("boosting")
        artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, self.shelf("compiled"))
        artifact.save(model.pipeline, model.meta, self.shelf("generic"))

    def shelf(self, kind: str) -> Path:
        return self.home / "shelf" / kind

    @property
    def model(self) -> ServableModel:
        """The training's own model: what every right answer is compared with."""
        return credit.trained("boosting")

    @contextmanager
    def mutant(self, guard: str) -> Iterator[Proof]:
        """The same shelf, with servers that lack a guard; they end with the block."""
        home = self.new_place(f"without-{guard}")
        home.mkdir()
        (home / "shelf").symlink_to(self.home / "shelf")
        with ExitStack() as running:
            yield Proof(home=home, without=guard, console=self.console, running=running)

    def new_place(self, name: str) -> Path:
        with self._starting:
            self._places += 1
            return self.home / f"{name}-{self.without or 'whole'}-{self._places:03d}"

    def new(self, without: str = "", **more: Any) -> Server:
        """A server that is not started yet, in a home of its own."""
        server = Server(self.new_place("server"), without or self.without, **more)
        self.servers.append(server)
        self.running.callback(server.end)  # a case that fails leaves its server behind
        return server

    @contextmanager
    def server(self, kind: str = "compiled", **more: Any) -> Iterator[Server]:
        """A ready server for one case alone."""
        server = self.new(**more)
        try:
            yield server.serving(self.shelf(kind))
        finally:
            if server.process:
                server.stop()

    def shared(self, kind: str = "compiled") -> Server:
        """A ready server for all cases that leave it as they found it."""
        with self._starting:
            found = self._shared.get(kind)
        if found is None:
            found = self.running.enter_context(self.server(kind))
            self._shared[kind] = found
        return found


# --- asking -----------------------------------------------------------------------------------------------------------


def row_text(number: int = 0, **cells: str) -> str:
    """A row as JSON with some cells replaced by raw text, which need not be JSON."""
    told = {name: json.dumps(value) for name, value in credit.rows()[number].items()} | cells
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in told.items()) + "}"


def body(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"rows": [dict(row) for row in rows]}).encode()


def probabilities(answer: Mapping[str, Any]) -> list[float]:
    return [float(each["probability"]) for each in answer["predictions"]]


@contextmanager
def connected(port: int, timeout: float = 15) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        yield sock


def raw(port: int, data: bytes, seconds: float = 15) -> bytes:
    """Sends bytes, and gives whatever comes back until the other side closes or an answer is whole."""
    with connected(port, seconds) as sock:
        with suppress(TimeoutError, ConnectionError):
            sock.sendall(data)
        return received(sock)


def received(sock: socket.socket) -> bytes:
    found = b""
    with suppress(TimeoutError, ConnectionError):
        while not _whole(found) and (part := sock.recv(65536)):
            found += part
    return found


def request(sent: bytes, *more: str) -> bytes:
    """A prediction as bytes on the wire."""
    return head("/predict", f"content-length: {len(sent)}", *more) + sent


def _whole(data: bytes) -> bool:
    head, found, rest = data.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found and length) and len(rest) >= int(length[0].split(b":")[1])


def head(path: str = "/predict", *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def under_load(plan: Plan) -> Iterator[list[Result]]:
    """A load in a process of its own while the block runs; its result is in the list afterwards.

    A short load goes before it, so that the process has loaded what it needs when the block begins.
    """
    found: list[Result] = []
    with load.process() as pool:
        pool.submit(load.run, replace(plan, seconds=0.2)).result()
        running = pool.submit(load.run, plan)
        time.sleep(0.5)  # not a wait for something: half a second of load before what happens in the block
        yield found
        found.append(running.result())


def failures(result: Result) -> str:
    """What went wrong for clients, by kind; empty when nothing did."""
    bad = {status: count for status, count in result.statuses.items() if status != 200}
    return f"{bad or ''}{result.summary()['failures'] or ''}"
