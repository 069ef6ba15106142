"""The model server beside a former version of itself, on one core in one run: a change must not make it slower.

    git worktree add ../former TAG && make bench-former FORMER=../former
    python -m tests.benchmarks.bench_former ../former [--quick]

Each checkout trains the model and serves it with its own code, all in this environment. Rounds are interleaved and each
begins with the other server. `ratio` is the median over the rounds of present / former, requests a second (99th
percentile: former / present); the last line is JSON, and `ok` says that nothing failed and that no ratio of requests a
second is below `LEAST`.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests import load
from tests.benchmarks import bench_serving, contestants
from tests.benchmarks.bench_serving import CONNECTIONS, Bench, Goal, Size

LEAST = 0.97  # two processes of one version differ by up to 3 %
SIZE = Size(rounds=15, seconds=2.0)
QUICK = Size(rounds=3, seconds=1.0, warm_s=1.0)
PAIRS = (("present", "former"), ("present generic", "former generic"))


def _enter_servers(bench: Bench, stack: ExitStack, rooms: dict[str, Path], roots: dict[str, Path]) -> Iterator[Any]:
    for suffix, folder, expected in (("", "serving", "expected"), (" generic", "serving-generic", "generic")):
        for name, root in roots.items():
            known = json.loads((rooms[name] / "rows.json").read_text())
            contestant = replace(contestants.ours(rooms[name] / folder, name + suffix), root=root)
            server = stack.enter_context(bench_serving.frozen(contestant, rooms[name]))
            bench.agree(server, known[expected])
            server.freeze()
            yield server


def compare(former: Path, room: Path, size: Size) -> dict[str, Any]:
    """Answers the ratios of both pairs at each number of connections."""
    roots = {"present": contestants.ROOT, "former": former.resolve()}
    rooms = {name: room / name for name in roots}
    for name, root in roots.items():
        rooms[name].mkdir()
        known = bench_serving.made(rooms[name], root)
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(load.process(contestants.cores()[1])), known, size)
        servers = list(_enter_servers(bench, stack, rooms, roots))
        for pair in (servers[:2], servers[2:]):
            bench.rounds(pair, CONNECTIONS)
    goals = [
        Goal(present, before, connections, LEAST if of == "per_second" else 0.0, of)
        for present, before in PAIRS
        for connections in CONNECTIONS
        for of in ("per_second", "p99_ms")
    ]
    Console(width=150).print(bench_serving.table(bench.figures))
    failed = sum(bench.figures.failed(name) for name in bench.figures.names)
    ratios = {
        f"{goal.name} / {goal.peer} at {goal.connections}, {goal.of}": round(
            statistics.median(goal.ratios(bench.figures)), 3
        )
        for goal in goals
    }
    kept = all(goal["ok"] for goal in bench_serving.judged(bench.figures, goals))
    return {"ok": kept and not failed, "failed": failed, "ratio": ratios, "least": LEAST}


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("former", type=Path, help="a checkout of the former version")
    arguments.add_argument("--quick", action="store_true")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as scratch:
        result = compare(given.former, Path(scratch), QUICK if given.quick else SIZE)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
