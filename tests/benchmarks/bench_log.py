"""What the prediction log costs the predictions beside it: time per append, and the pauses of an event loop.

    python -m tests.benchmarks.bench_log [seconds] [requests per second]

An event loop in a process of its own appends requests of one row at a steady rate, as the model server does, and notes
how late each of its one-millisecond naps ends, with the log and without it, in turns. The log writes real segments, so
often that several are sealed and stored in each round. Pauses of the machine itself show in the rounds without a log;
the figure that counts is the difference.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from include.data.store.local_store import LocalObjectStore
from include.feedback.segments import Segments
from include.feedback.spec import LogSpec
from include.serving.exchange import Answer, RequestContext
from include.serving.log.prediction_log import PredictionLog
from include.serving.slot.current_model import CurrentModel
from tests import credit
from tests.serving.test_prediction_log import Counts, slot

APPEND_US, PAUSE_MS, RSS_MB = 2.0, 5.0, 80.0
ROUNDS = 5


def main(seconds: float = 6.0, rate: int = 5000) -> int:
    with tempfile.TemporaryDirectory(prefix="evergreen-log-") as place:
        before, counts = resident_mb(), Counts()
        log = opened(Path(place), counts)
        append_us = min(cost(log) for _ in range(ROUNDS))
        rounds = [asyncio.run(naps(kind and log, seconds, rate)) for _ in range(ROUNDS) for kind in (None, True)]
        grown = resident_mb() - before
        log.close(30)
    quiet, logged = rounds[::2], rounds[1::2]
    figures = {
        "append_us": round(append_us, 2),
        "pause_ms_p999": {"without": median(quiet, 99.9), "with": median(logged, 99.9)},
        "pause_ms_max": {"without": median(quiet, 100), "with": median(logged, 100)},
        "rows": counts.rows,
        "rss_grown_mb": round(grown, 1),
    }
    added = figures["pause_ms_max"]["with"] - figures["pause_ms_max"]["without"]  # type: ignore[index]
    ok = append_us <= APPEND_US and added <= PAUSE_MS and grown <= RSS_MB and not counts.rows["full"]
    print(json.dumps({"ok": bool(ok), **figures}))
    return 0 if ok else 1


def opened(place: Path, counts: Counts) -> PredictionLog:
    spec, both = LogSpec(flush_s=2.0), {"predictions": counts, "feedback": Counts()}
    holder = CurrentModel("blue", slot(*credit.columns()))
    log = PredictionLog(
        spec, holder, lambda: Segments(LocalObjectStore(place)), both.__getitem__, spool=place / "spool"
    )
    log.start()
    return log


def requests(count: int) -> list[tuple[RequestContext, list[credit.Row], Answer]]:
    rows = [{**row, **{k: float(v) for k, v in row.items() if isinstance(v, int)}} for row in credit.rows()]
    return [
        (RequestContext(f"{number:032x}", None, 0.0, 0.0), [dict(rows[number % len(rows)])], ANSWER)
        for number in range(count)
    ]


ANSWER = Answer("3", "blue", "d" * 64, [0.25], ["good"], [False])


def cost(log: PredictionLog) -> float:
    """Microseconds of one append, over a thousand."""
    asked = requests(1000)
    began = time.perf_counter()
    for who, rows, answer in asked:
        log.append(who, rows, answer, 200, 0.002)
    took = time.perf_counter() - began
    time.sleep(0.5)
    return took * 1e3


async def naps(log: PredictionLog | None, seconds: float, rate: int) -> Any:
    """How many milliseconds too late each nap of one millisecond ended."""
    late, end, debt = [], time.perf_counter() + seconds, 0.0
    made, number, last = requests(rate), 0, time.perf_counter()
    while (now := time.perf_counter()) < end:
        debt, last = debt + (now - last) * rate, now
        for _ in range(int(debt)):
            who, rows, answer = made[number % rate]
            number += 1
            if log:
                log.append(who, [dict(rows[0])], answer, 200, 0.002)
        debt -= int(debt)
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - began - 0.001) * 1e3)
    return np.array(late)


def median(rounds: list[Any], percentile: float) -> float:
    return round(float(np.median([np.percentile(each, percentile) for each in rounds])), 2)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
