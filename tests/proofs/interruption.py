"""Tasks of the train DAG as processes that can be killed at any outside effect, and the eyes that count those effects.

Outside effects of a task are its requests to MLflow, seen by a proxy in front of the real server, and its writes to
the store, seen by an audit hook in the child. Both are outside of the product's code: nothing in it knows of them.

Importing MLflow and scikit-learn takes longer than a training, so a server process imports them once and forks a child
for every task (`python -m tests.proofs.interruption`, one JSON request a line). A forked child is a process like any
other: SIGKILL ends it between two instructions.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
Where = Literal["request", "answer", "write", "outage", "never"]
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Point:
    """Before the number-th request arrives, after its effect but before its answer, or before the number-th write.

    outage: from that request on MLflow does not answer any more.
    """

    where: Where = "never"
    number: int = 0


@dataclass(frozen=True)
class Ended:
    """How a task ended, and how many effects it had."""

    code: int
    requests: int
    writes: int
    output: str


class Proxy:
    """In front of MLflow: counts requests, and kills the watched process at one of them, or plays dead from it on."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.requests, self._point, self._pid = 0, Point(), 0
        self._lock, self._known = threading.Lock(), threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def arm(self, point: Point) -> None:
        self.requests, self._point = 0, point
        self._known.clear()

    def watch(self, pid: int) -> None:
        self._pid = pid
        self._known.set()

    def arrived(self) -> int:
        """The number of this request; kills before it has any effect when that is the point."""
        self._known.wait(10)
        with self._lock:
            self.requests += 1
            number = self.requests
        if self._point == Point("request", number):
            self.kill()
        return number

    def done(self, number: int) -> None:
        if self._point == Point("answer", number):
            self.kill()

    def is_out(self, number: int) -> bool:
        return self._point.where == "outage" and number >= self._point.number

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        self._server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed task hangs up on everybody; that is what is being tested."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        number = self.proxy.arrived()
        if self.proxy.is_out(number):
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.proxy.done(number)
        with contextlib.suppress(OSError):  # whoever asked may be dead by now
            self._answer(answer, content)

    def _answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on

    def log_message(self, *_: Any) -> None:
        pass


class Tasks:
    """The process that has everything imported, and forks the tasks."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        command = [sys.executable, "-m", "tests.proofs.interruption"]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self._server: Any = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self._told()

    def run(self, task: str, environment: Mapping[str, str], point: Point = Point()) -> Ended:
        """Runs one task to its end, or to its death at `point`."""
        self._proxy.arm(point)
        asked = {"task": task, "environment": dict(environment), "point": asdict(point)}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._proxy.watch(self._told()["pid"])
        told = self._told()
        return Ended(told["code"], self._proxy.requests, told["writes"], told["output"])

    def _told(self) -> dict[str, Any]:
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the process that forks the tasks is gone")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


class _Writes:
    """Counts what the child changes under one directory, and kills it before one of these changes."""

    def __init__(self, root: str, fatal: int, tally: Path) -> None:
        self._root, self._fatal, self._tally, self.count, self._own = root, fatal, tally, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._own or not self._changes(event, arguments):
            return
        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self._own = True
        self._tally.write_text(str(self.count))
        self._own = False

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            return False
        if event == "open" and not (len(arguments) > 2 and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return False
        return str(arguments[0]).startswith(self._root)


def serve() -> None:
    """Imports, then forks a child for every line until there are no more."""
    import include.jobs.evaluate
    import include.jobs.train  # noqa: F401
    from tests.proofs import train_dag

    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get between the answers

    def tell(**what: Any) -> None:
        os.write(out, (json.dumps(what) + "\n").encode())

    tell(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        scratch = Path(asked["environment"]["PROOF_SCRATCH"])
        go, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(release)
            os.read(go, 1)
            _child(asked, scratch, train_dag.run)
        os.close(go)
        tell(pid=pid)
        os.close(release)
        _, status = os.waitpid(pid, 0)
        tally = scratch / "writes"
        writes = int(tally.read_text()) if tally.exists() else 0
        tally.unlink(missing_ok=True)
        output = (scratch / "output").read_text(errors="replace")[-2000:]
        tell(code=os.waitstatus_to_exitcode(status), writes=writes, output=output)


def _child(asked: dict[str, Any], scratch: Path, run: Any) -> None:
    handle = os.open(scratch / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(asked["environment"])
    point = asked["point"]
    fatal = point["number"] if point["where"] == "write" else 0
    sys.addaudithook(_Writes(os.environ["EVERGREEN_STORE"], fatal, scratch / "writes"))
    code = 1
    try:
        code = run(asked["task"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
