"""The model server beside its peers: same model, same machine, same core, one run: `make bench-serving`.

    python -m tests.benchmarks.bench_serving --quick       two short rounds, to see that all of it works
    python -m tests.benchmarks.bench_serving --markdown    the table for docs/proofs.md as well

Rounds are interleaved and each begins with another server, so that a slow minute of the machine falls on all. A goal
is held against the median round; the worst one stands beside it. Before anything is measured, all servers must give
the same probabilities. The server's process is bound to one core and the client to
another, the same for everybody (see contestants). The last line is JSON; `ok` says whether every bound held.

CPU is the server's own time for a request, children included: unlike requests a second, it says something on a busy
machine too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tests import load
from tests.benchmarks import contestants, switched_on
from tests.benchmarks.contestants import Contestant, Running, started
from tests.load import Result

CONNECTIONS = (1, 16, 64)
TOLERANCE = 1e-6
COMPARED = 500  # rows
STARTS = 3
MAX_RSS_MB, MAX_READY_S = 250.0, 2.0
HALT_S, HALTS_S = 0.001, 10.0  # what counts as a halt of the machine; how long is looked for them
OPEN_SHARE, OPEN_TAIL, OPEN_GROWTH = 0.5, 10.0, 1.25  # of capacity; p99 / p50; last third / first third
console = Console(width=150)


@dataclass(frozen=True)
class Size:
    """How long everything takes."""

    rounds: int = 5
    seconds: float = 3.0
    warm_s: float = 3.0
    open_s: float = 60.0


QUICK = Size(rounds=2, seconds=1.0, warm_s=1.0, open_s=6.0)


@dataclass(frozen=True)
class Figure:
    """One server in one round."""

    per_second: float  # answers with 200
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float


@dataclass(frozen=True)
class Goal:
    """`name` divided by `peer` (p99: the other way round) is at least this, at so many connections."""

    name: str
    peer: str
    connections: int
    least: float
    of: str = "per_second"

    def ratios(self, figures: Figures) -> list[float]:
        own, other = (figures.rounds(name, self.connections, self.of) for name in (self.name, self.peer))
        pairs = zip(own, other, strict=True)
        return [b / a if self.of == "p99_ms" else a / b if b else float("inf") for a, b in pairs]


GOALS = (
    Goal("ours", "mlflow", 1, 20),
    Goal("ours", "mlflow", 16, 40),
    Goal("ours", "mlflow", 64, 40),
    Goal("ours", "mlflow", 16, 5, "p99_ms"),
    Goal("ours", "mlflow", 64, 5, "p99_ms"),
    Goal("ours", "litserve", 64, 3),
    Goal("ours", "bentoml", 64, 5),
    Goal("ours", "noop", 64, 0.5),
    Goal("ours generic", "naive generic", 64, 10),
    Goal("ours generic", "naive generic", 1, 0.95),
    Goal("ours explain", "naive explain", 1, 5),
    Goal("ours explain", "naive explain", 16, 5),
)


class Figures:
    """All rounds of all servers."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], list[Figure]] = {}

    def add(self, name: str, connections: int, figure: Figure) -> None:
        self._found.setdefault((name, connections), []).append(figure)

    def rounds(self, name: str, connections: int, of: str) -> list[float]:
        return [getattr(figure, of) for figure in self._found[name, connections]]

    def median(self, name: str, connections: int, of: str) -> float:
        return statistics.median(self.rounds(name, connections, of))

    def failed(self, name: str) -> int:
        return sum(figure.failed for (of, _), found in self._found.items() for figure in found if of == name)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._found))

    def at(self, name: str) -> list[int]:
        return [connections for of, connections in self._found if of == name]


class Bench:
    """The servers, the client, and what was found."""

    def __init__(self, client: ProcessPoolExecutor, known: dict[str, Any], size: Size) -> None:
        self._client, self._size = client, size
        self.rows, self._known = known["rows"], known
        self.figures = Figures()
        self.answered: dict[str, int] = {}
        self.residual: dict[str, float] = {}  # of the worst explanation

    def load(self, server: Running, **how: Any) -> Result:
        """Runs one load with all other servers frozen."""
        server.thaw()
        result = self._client.submit(load.run, server.contestant.plan(server.port, self.rows, **how)).result()
        name = server.contestant.name
        self.answered[name] = self.answered.get(name, 0) + result.statuses[200]
        return result

    def agree(self, server: Running, expected: Sequence[float] | None) -> None:
        """Warms the server up and holds each of its answers against the pipeline's; the floor computes nothing."""
        server.thaw()
        server.await_answer(self.rows[0])
        self.answered[server.contestant.name] = 1
        self.load(server, connections=64, seconds=self._size.warm_s)
        found = self.load(server, connections=16, seconds=30, most=COMPARED, keep=True, timeout_s=30)
        if found.failed:
            raise SystemExit(f"{server.contestant.name} failed on {found.failed} rows: {found.summary()}")
        served = [server.contestant.read(json.loads(body)) for body in found.bodies]
        if expected is None:
            return
        off = float(np.max(np.abs(np.array(served) - np.array(expected)[found.which])))
        console.print(
            f"{server.contestant.name}: ready in {server.ready_s:.1f} s; {len(served)} rows, off by {off:.1e}"
        )
        if off > TOLERANCE:
            raise SystemExit(f"{server.contestant.name} answers another question: off by {off:g}.")

    def measure(self, server: Running, connections: int, seconds: float) -> Figure:
        before = server.cpu_s()
        explains = server.contestant.residual is not None
        found = self.load(server, connections=connections, seconds=seconds, keep=explains)
        self._add_up(server.contestant, found)
        cpu_us = (server.cpu_s() - before) / max(found.answered, 1) * 1e6
        good = int((found.status == 200).sum()) / found.seconds if found.seconds else 0.0
        return Figure(good, found.ms(50), found.ms(99), found.failed, cpu_us)

    def _add_up(self, contestant: Contestant, found: Result) -> None:
        """Every explanation is looked at; what was refused explains nothing and is counted as failed."""
        if contestant.residual is None:
            return
        good = [body for body, status in zip(found.bodies, found.status, strict=True) if status == 200]
        worst = max((contestant.residual(json.loads(body)) for body in good), default=0.0)
        self.residual[contestant.name] = max(worst, self.residual.get(contestant.name, 0.0))

    def rounds(self, servers: Sequence[Running], connections: Sequence[int], finer: int = 1) -> None:
        """`finer`: so many times more rounds, each so much shorter, for servers that are nearly equal: a slow second of
        the machine then falls on both."""
        seconds = self._size.seconds / finer
        for number in range(self._size.rounds * finer):
            for open_ in connections:
                first = number % len(servers)
                for server in (*servers[first:], *servers[:first]):
                    self.figures.add(server.contestant.name, open_, self.measure(server, open_, seconds))
                    server.freeze()
                self._tell(servers, number, open_)

    def _tell(self, servers: Sequence[Running], number: int, connections: int) -> None:
        names = [server.contestant.name for server in servers]
        last = [self.figures.rounds(name, connections, "per_second")[-1] for name in names]
        told = [f"{name} {figure:,.0f}" for name, figure in zip(names, last, strict=True)]
        console.print(f"round {number + 1}, {connections:>2} connections, requests/s: {', '.join(told)}")

    def open_loop(self, server: Running) -> dict[str, float]:
        """At half of what a closed loop finds right before, for the machine changes: does it stay as fast as it began?

        `stolen` is the share of the time in which the machine's host kept the server's core to itself.
        """
        rate = OPEN_SHARE * self.load(server, connections=64, seconds=self._size.seconds).per_second
        before, stolen = server.rss_mb(), _stolen_s()
        found = self.load(server, connections=64, seconds=self._size.open_s, rate=rate, timeout_s=20)
        thirds = np.array_split(found.latency[np.argsort(found.due)], 3)
        first, last = (float(np.median(third)) for third in (thirds[0], thirds[-1]))
        return {
            "rate": rate,
            "requests": found.answered,
            "failed": found.failed,
            **{f"p{at:g}_ms": found.ms(at) for at in (50, 90, 95, 99, 99.9)},
            "max_ms": found.ms(100),
            "tail": found.ms(99) / found.ms(50),
            "growth": last / first,
            "rss_growth": server.rss_mb() / before,
            "stolen": (_stolen_s() - stolen) / found.seconds,
        }


def halts(cpu: int | None) -> dict[str, float]:
    """How often, for which share of the time and how long a core halts a millisecond or more, to a loop that only reads
    the clock."""
    with load.process(cpu) as process:
        found = process.submit(_gaps_s, HALTS_S).result()
    return {"a_second": len(found) / HALTS_S, "share": sum(found) / HALTS_S, "max_ms": max(found, default=0.0) * 1e3}


def _gaps_s(seconds: float) -> list[float]:
    last = time.perf_counter()
    end, found = last + seconds, []
    while last < end:
        now = time.perf_counter()
        if now - last >= HALT_S:
            found.append(now - last)
        last = now
    return found


def _stolen_s() -> float:
    return float(getattr(psutil.cpu_times(percpu=True)[contestants.cores()[0] or 0], "steal", 0.0))


@contextmanager
def frozen(contestant: Contestant, room: Path) -> Iterator[Running]:
    with started(contestant, room, contestants.cores()[0]) as server:
        server.freeze()
        yield server


def start_seconds(contestant: Contestant, room: Path) -> list[float]:
    """From the start of the process to ready, with nobody beside it."""
    found = []
    for _ in range(STARTS):
        with started(contestant, room, contestants.cores()[0]) as server:
            found.append(server.ready_s)
    console.print(f"start to ready: {', '.join(f'{each:.2f} s' for each in found)}")
    return found


def made(room: Path, root: Path = contestants.ROOT) -> dict[str, Any]:
    """Trains the model in a process of the checkout `root`, unless `room` holds it; answers rows and what the pipelines
    say."""
    if (room / "rows.json").exists():
        return dict(json.loads((room / "rows.json").read_text()))
    console.print("training the model")
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.serving_model", str(room)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The model could not be trained:\n{done.stderr[-3000:]}")
    known: dict[str, Any] = json.loads((room / "rows.json").read_text())
    return known


def field(room: Path) -> list[tuple[Contestant, str | None]]:
    """Who is compared, and under which name rows.json holds what he must answer."""
    pipeline = room / "pipeline.joblib"
    return [
        (contestants.ours(room / "serving"), "expected"),
        (contestants.fastapi("noop", "noop", pipeline), None),
        (contestants.mlflow(room / "mlflow"), "expected"),
        (contestants.bentoml(pipeline, room), "expected"),
        (contestants.litserve(pipeline), "expected"),
        (contestants.ours(room / "serving-generic", "ours generic"), "generic"),
        (contestants.fastapi("naive generic", "naive", room / "generic.joblib"), "generic"),
        (contestants.explaining(room / "serving-explain"), "expected"),
        (contestants.naive_explaining(pipeline), "expected"),
    ]


def judged(figures: Figures, goals: Sequence[Goal]) -> list[dict[str, Any]]:
    found = []
    for goal in goals:
        ratios = goal.ratios(figures)
        median, worst = statistics.median(ratios), min(ratios)
        ok = median >= goal.least
        found.append({**vars(goal), "median": round(median, 2), "worst": round(worst, 2), "ok": ok})
    return found


def compare(room: Path, size: Size) -> dict[str, Any]:
    contestants.install_peers()
    known = made(room)
    for store in room.glob("serving*/store"):  # of an earlier run in the same room
        shutil.rmtree(store)
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(load.process(contestants.cores()[1])), known, size)
        starts = start_seconds(contestants.ours(room / "serving"), room)
        servers = [_entered(bench, stack.enter_context(frozen(each, room)), known, of) for each, of in field(room)]
        bench.rounds(servers[:5], CONNECTIONS)
        bench.rounds(servers[5:7], (1, 64), finer=3)
        bench.rounds(servers[7:], (1, 16))
        opened = bench.open_loop(servers[0])
        rss = servers[0].rss_mb()
        on = everything_on(bench, servers[0], room / "serving" / "store")
        floor = bench.open_loop(servers[1])  # what this machine does to a server that does nothing
        halted = {"server": halts(contestants.cores()[0]), "client": halts(contestants.cores()[1])}
    found = {"ready_s": starts, "open": opened, "open_noop": floor, "halts": halted, "rss_mb": rss, "on": on}
    return report(bench, found)


def _entered(bench: Bench, server: Running, known: dict[str, Any], of: str | None) -> Running:
    bench.agree(server, known[of] if of else None)
    server.freeze()
    return server


def everything_on(bench: Bench, server: Running, store: Path) -> dict[str, Any]:
    """Ends the server, so that its log is whole."""
    refused, counted = switched_on.refusals(server, bench.rows[0]), switched_on.counted(server, "/predict")
    lost = switched_on.lost(server)
    server.end()
    answered, recorded = bench.answered[server.contestant.name], switched_on.recorded(store)
    console.print(f"answered {answered:,}, counted by /metrics {counted:,}, in the log {recorded:,}, lost {lost}")
    ok = set(refused) == {422} and answered == counted == recorded and lost == 0
    return {"ok": ok, "refused": refused, "answered": answered, "counted": counted, "recorded": recorded, "lost": lost}


def report(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    goals, opened = judged(bench.figures, GOALS), found["open"]
    bounds = {
        "goals": all(goal["ok"] for goal in goals),
        "failed": sum(bench.figures.failed(name) for name in bench.figures.names if name.startswith("ours")) == 0,
        "ready": max(found["ready_s"]) <= MAX_READY_S,
        "rss": found["rss_mb"] <= MAX_RSS_MB,
        "open": opened["failed"] == 0 and opened["tail"] <= OPEN_TAIL,
        "open_growth": opened["growth"] <= OPEN_GROWTH and opened["rss_growth"] <= OPEN_GROWTH,
        "additive": max(bench.residual.values()) <= TOLERANCE,
        "everything_on": found["on"]["ok"],
    }
    show(bench, goals)
    return {
        "ok": all(bounds.values()),
        "bounds": bounds,
        "goals": goals,
        **_rounded(found),
        "residual": bench.residual,
        "servers": {name: told(bench.figures, name) for name in bench.figures.names},
    }


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_rounded(value) for value in found]
    return round(found, 3) if isinstance(found, float) else found


def told(figures: Figures, name: str) -> dict[str, Any]:
    names = ("per_second", "p50_ms", "p99_ms", "cpu_us")
    medians = {str(at): {of: round(figures.median(name, at, of), 2) for of in names} for at in figures.at(name)}
    return {**medians, "failed": figures.failed(name)}


def show(bench: Bench, goals: list[dict[str, Any]]) -> None:
    console.print(table(bench.figures))
    for goal in goals:
        what = "p99 of {peer} / {name}" if goal["of"] == "p99_ms" else "{name} / {peer}"
        said = f"{what.format(**goal)} at {goal['connections']}: {goal['median']:g}, at least {goal['least']:g}"
        console.print(f"{'ok  ' if goal['ok'] else 'FAIL'} {said} (worst round {goal['worst']:g})")


def cells(figures: Figures) -> Iterator[list[str]]:
    for name in figures.names:
        row = [name]
        for at in CONNECTIONS:
            if at in figures.at(name):
                median = [figures.median(name, at, of) for of in ("per_second", "p99_ms", "cpu_us")]
                row.append("{:,.0f} ({:.1f} ms, {:,.0f} us)".format(*median))
            else:
                row.append("")
        yield [*row, str(figures.failed(name))]


HEADINGS = ("server", *(f"{at} connection{'s' if at > 1 else ''}" for at in CONNECTIONS), "failed")


def table(figures: Figures) -> Table:
    made = Table(*HEADINGS, title="requests/s (99th percentile, CPU a request), median round")
    for row in cells(figures):
        made.add_row(*row)
    return made


def markdown(figures: dict[str, Any]) -> str:
    """The servers' table for docs/proofs.md, from the figures of the last line."""
    lines = ["| server | " + " | ".join(HEADINGS[1:-1]) + " |", "|---|" + "---|" * len(CONNECTIONS)]
    for name, found in figures["servers"].items():
        lines.append(f"| {name} | {' | '.join(_cell(found.get(str(at))) for at in CONNECTIONS)} |")
    return "\n".join(lines)


def _cell(found: dict[str, float] | None) -> str:
    return f"{found['per_second']:,.0f} ({found['p99_ms']:.1f})" if found else ""


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--markdown", action="store_true")
    asked.add_argument("--room", type=Path, help="an empty directory for model and logs, which then stay")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as scratch:
        figures = compare(given.room or Path(scratch), QUICK if given.quick else Size())
    if given.markdown:
        print(markdown(figures))
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
