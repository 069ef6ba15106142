"""Where a release is killed: before each of its effects outside of its own process.

Python tells an audit hook what it is about to do: a file it creates, renames or removes, a request it sends with
http.client (the process manager and MLflow are asked that way). Between two effects nothing changes that anybody could
see, so killing before each of them, and after the last, covers every moment there is. Nothing in the product knows.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMING = {"os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir", "os.rename": "rename"}
TEMPORARY = re.compile(r"^\.?(.+?)\.[a-z0-9_]{8}$")
SENT = re.compile(rb"<methodName>supervisor\.(\w+)|^(POST|PATCH|PUT|DELETE) (\S+)")
LOCK = "lock"  # about to take the target's lock: no effect, but a place to be held up at
ROUTED, SWITCHED = "rename routes.yaml", "rename routes.yaml, the switch"
IS_SWITCH = re.compile(r"(\d+)\.\1-[a-z]+_(first|only)$")  # of a deployment: on trial is who it was written for
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Point:
    """Before the `number`-th effect of this name; `how` is SIGKILL, or SIGSTOP for a process that is held up there."""

    effect: str
    number: int = 1
    how: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.effect} {self.number}"


@dataclass(frozen=True)
class Effect:
    """What a process was about to do at a moment of time.monotonic; `route` is the label of the route it writes."""

    at: float
    name: str
    route: str = ""


class Effects:
    """An audit hook: notes every effect in `tally`, and kills its process at `fatal`."""

    def __init__(self, tally: Path, fatal: Point | None) -> None:
        self._fatal, self._seen = fatal, Counter[str]()
        self._roots = tuple(os.environ[name] for name in ("EVERGREEN_SERVING_DIR", "EVERGREEN_STORE"))
        self._lock = os.path.join(os.environ["EVERGREEN_SERVING_DIR"], ".lock")
        self._tally = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        name = self.name(event, arguments)
        if not name:
            return
        self._seen[name] += 1
        route = _route(arguments[0]) if name in (ROUTED, SWITCHED) else ""
        os.write(self._tally, f"{time.monotonic()}\t{name}\t{route}\n".encode())
        if self._fatal and (name, self._seen[name]) == (self._fatal.effect, self._fatal.number):
            os.kill(os.getpid(), self._fatal.how)

    def name(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """What this event is called if it is an effect, or the taking of the lock."""
        name = self._name(event, arguments)
        return SWITCHED if name == ROUTED and IS_SWITCH.match(_route(arguments[0])) else name

    def _name(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "http.client.send":
            return _sent(arguments[1])
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | os.PathLike) and str(path) == self._lock:
                return LOCK
            return f"open {_plain(path)}" if isinstance(flags, int) and flags & WRITES and self._ours(path) else None
        if event in NAMING:
            path = arguments[1] if event == "os.rename" else arguments[0]
            return f"{NAMING[event]} {_plain(path)}" if self._ours(path) else None
        return None

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and str(path).startswith(self._roots) and ".lock" not in str(path)


def noted(tally: Path) -> list[Effect]:
    """What an audit hook wrote down, oldest first."""
    lines = tally.read_text().splitlines() if tally.exists() else []
    return [Effect(float(at), name, route) for at, name, route in (line.split("\t") for line in lines)]


def _route(draft: Any) -> str:
    """The label in a route file that is about to be put in force: its first line."""
    return Path(draft).read_text().partition("\n")[0].removeprefix("version_info: ").strip("'")


def _plain(path: Any) -> str:
    """The file's name without what mkstemp added, and without which slot, artifact or blessing it is of."""
    name = os.path.basename(str(path))
    found = TEMPORARY.match(name)
    name = re.sub(r"^(blue|green)\.json$", "<slot>.json", found.group(1) if found else name)
    return re.sub(r"[0-9a-f]{32,}", "<digest>", name)


def _sent(data: Any) -> str | None:
    found = SENT.search(data) if isinstance(data, bytes) else None
    if not found:
        return None
    procedure, verb, path = found.groups()
    if procedure:
        return f"call {procedure.decode()}"
    return None if path == b"/RPC2" else f"{verb.decode()} {path.decode().rsplit('/', 1)[-1]}"


class Armed:
    """An audit hook for tasks of a real Airflow: kills the task, or its worker, at the point that a file names.

    The file is taken away first, so that the retry lives.
    """

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._effects = Effects(plan.with_suffix(".log"), None)
        self._seen = Counter[str]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        name = self._effects.name(event, arguments)
        if name and self._plan.exists():
            self._seen[name] += 1
            told = json.loads(self._plan.read_text())
            if (name, self._seen[name]) == (told["effect"], told["number"]):
                self._plan.unlink()
                os.kill(os.getppid() if told["whom"] == "worker" else os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Called where Airflow loads a DAG file: only tasks of releases ever come to a point."""
    sys.addaudithook(Armed(Path(os.environ["EVERGREEN_HOME"]) / "kill.json"))
