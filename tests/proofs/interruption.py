"""Tasks of the train DAG as processes that can be killed at any outside effect, and the eyes that count those effects.

Outside effects of a task are its requests to MLflow, seen by a proxy in front of the real server, and its writes to
the store, seen by an audit hook in the child. Both are outside of the product's code: nothing in it knows of them.

Importing MLflow and scikit-learn takes longer than a training, so a server process imports them once and forks a child
for every task (`python -m tests.proofs.interruption`, one JSON request a line). A forked child is a process like any
other: SIGKILL ends it between two instructions.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.fault_proxy import Fault, FaultProxy

ROOT = Path(__file__).resolve().parents[2]
Where = Literal["request", "answer", "write", "outage", "never"]


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


class Watch:
    """Counts a task's requests at the proxy; kills the task at one of them, or lets the proxy play dead from it on."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.url, self.requests, self._point, self._pid = proxy.url, 0, Point(), 0
        self._faults = proxy.faults
        self._lock, self._known, self._own = threading.Lock(), threading.Event(), threading.local()
        proxy.watch = self._seen

    def arm(self, point: Point) -> None:
        self.requests, self._point = 0, point
        outage = Fault("reset", "", spared=point.number - 1)
        self._faults[:] = [outage] if point.where == "outage" else []
        self._known.clear()

    def follow(self, pid: int) -> None:
        self._pid = pid
        self._known.set()

    def _seen(self, when: str, line: str) -> None:
        """Before and after a request come from one thread of the proxy, so each knows its own number."""
        if when == "before":
            self._known.wait(10)
            self._own.number = self._counted()
        if self._point == Point("request" if when == "before" else "answer", self._own.number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _counted(self) -> int:
        with self._lock:
            self.requests += 1
            return self.requests


class Tasks:
    """The process that has everything imported, and forks the tasks."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        command = [sys.executable, "-m", "tests.proofs.interruption"]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self._server: Any = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self._told()

    def run(self, task: str, environment: Mapping[str, str], point: Point = Point()) -> Ended:
        """Runs one task to its end, or to its death at `point`."""
        self._watch.arm(point)
        asked = {"task": task, "environment": dict(environment), "point": asdict(point)}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._watch.follow(self._told()["pid"])
        told = self._told()
        return Ended(told["code"], self._watch.requests, told["writes"], told["output"])

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
    import include.gate.jobs.evaluate
    import include.training.jobs.train  # noqa: F401
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
