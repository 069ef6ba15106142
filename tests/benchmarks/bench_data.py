"""What a day costs from the delivered file to the published snapshot, by size; and the contract beside its oracle.

    make bench-data                                  1e5, 1e6 and 5e6 rows of 20 columns, the comparison at 1e6
    python -m tests.benchmarks.bench_data --quick    a tenth of everything

Every measurement is a process of its own, so its peak memory is its own. A few rows in a thousand are bad, so the
quarantine is written and nothing can be handed on as it came. The comparison runs the same rules by Great Expectations
on one data frame, turn by turn with ours; both read the same file, neither's time includes its imports, and verdicts
and numbers of bad rows must be equal. The last line is JSON; `ok` says whether every bound held.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from include import manifest as manifests
from include.data.core.contract import Outcome
from include.manifest import DEFAULT_PATH

DAY = date(2026, 8, 1)
SIZES, COMPARED = (100_000, 1_000_000, 5_000_000), 1_000_000
ROUNDS = 3
MAX_PEAK_MB = 1200  # at the largest size
MAX_EXPONENT = 1.15  # of time over rows, between the two largest sizes: 1 is linear
MIN_SPEEDUP = 8.0
CHUNK = 100_000  # rows made at a time
NUMBERS = [f"n{number:02d}" for number in range(13)]
CATEGORIES = [f"c{number}" for number in range(5)]
VALUES = ["owner", "rent", "parents", "other", "private"]


def contract(rows: int) -> dict[str, Any]:
    numbers = {name: {"kind": "number", "min": 0, "max": 1000, "max_missing": 0.2} for name in NUMBERS}
    categories = {name: {"kind": "category", "values": VALUES, "max_missing": 0.1} for name in CATEGORIES}
    return {
        "id": "id",
        "rows": {"min": 1, "max": 2 * rows},
        "columns": numbers | categories | {"c4": {"kind": "category", "matches": "[a-z]{3,12}", "max_missing": 0.1}},
        "checks": ["n00 <= n01"],
        "max_quarantined": 0.01,
    }


def write_manifest(place: Path, rows: int) -> Path:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content.pop("groups", None)
    content["contract"] = contract(rows)
    content["source"] = {"kind": "files", "path": str(place / f"{rows}-{{day}}.parquet")}
    content["label"] = {"column": "label", "positive": "bad", "negative": "good", "delay_days": 3}
    path = place / f"{rows}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make(place: Path, rows: int) -> None:
    """A delivery of `rows` rows and 20 columns, written a chunk at a time; some 3 rows in 1,000 are bad."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.string()), ("label", pa.string())]
        + [(name, pa.float64()) for name in NUMBERS]
        + [(name, pa.string()) for name in CATEGORIES]
    )
    with pq.ParquetWriter(place / f"{rows}-{DAY}.parquet", schema) as writer:
        for began in range(0, rows, CHUNK):
            writer.write_table(pa.table(_chunk(began, min(CHUNK, rows - began)), schema=schema))


def _chunk(began: int, count: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(began)
    columns: dict[str, Any] = {
        "id": [f"A{number:09d}" for number in range(began, began + count)],
        "label": random.choice(["good", "bad"], count),
    }
    for name in NUMBERS:
        values = random.gamma(2.0, 50.0, count).clip(0, 1000)
        values[random.random(count) < 0.0001] = -1.0
        columns[name] = pa.array(values, mask=random.random(count) < 0.05)
    lower, upper = columns["n00"].to_numpy(zero_copy_only=False), columns["n01"].to_numpy(zero_copy_only=False)
    swapped = np.where(
        np.isnan(lower) | np.isnan(upper) | (random.random(count) < 0.0005), upper, np.fmax(lower, upper)
    )
    columns["n01"] = pa.array(swapped, from_pandas=True)
    for name in CATEGORIES:
        values = random.choice(VALUES, count).astype(object)
        values[random.random(count) < 0.0001] = "CASTLE"
        columns[name] = pa.array(values, mask=random.random(count) < 0.03)
    columns["id"][1] = columns["id"][0]
    return columns


def ingest(place: Path, rows: int) -> dict[str, Any]:
    """The job as Airflow starts it, in this process: land, validate, publish."""
    os.environ |= {"EVERGREEN_STORE": str(place / "store"), "EVERGREEN_MANIFEST": str(place / f"{rows}.yaml")}
    from include.jobs.__main__ import run
    from include.kernel.job import Intent, JobRequest

    request = JobRequest(job="ingest", run_key="b", as_of=DAY, intent=Intent.HISTORICAL, params={"day": str(DAY)})
    began = time.perf_counter()
    result = run(request)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "rows": result.outputs["rows"], "quarantined": result.outputs["quarantined"]}


def columnar(place: Path, rows: int) -> dict[str, Any]:
    from include.data.validation.polars_validator import validate

    manifest = manifests.load(place / f"{rows}.yaml")
    with tempfile.TemporaryDirectory(dir=place) as room:
        began = time.perf_counter()
        found = validate(place / f"{rows}-{DAY}.parquet", manifest, DAY, directory=Path(room))
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "outcomes": _told(found.outcomes), "quarantined": found.quarantined}


def oracle(place: Path, rows: int) -> dict[str, Any]:
    """The same rules by Great Expectations on one data frame, which holds numbers and texts as they are needed."""
    import great_expectations  # noqa: F401  (its import is not counted)
    import pandas as pd

    from include.data.core.contract import list_expectations
    from include.data.validation import gx_validator

    manifest = manifests.load(place / f"{rows}.yaml")
    rules = list_expectations(manifest.contract, manifest.label)
    began = time.perf_counter()
    frame = pd.read_parquet(place / f"{rows}-{DAY}.parquet")
    outcomes = gx_validator.validate_typed(frame, rules)
    return {"seconds": time.perf_counter() - began, "outcomes": _told(outcomes)}


def _told(outcomes: Any) -> list[tuple[str, bool, int]]:
    return [(str(each.expectation), each.passed, _bad(each)) for each in outcomes]


def _bad(outcome: Outcome) -> int:
    return outcome.bad if outcome.expectation.about_rows or outcome.expectation.rule == "complete" else 0


MEASURED = {
    "make": lambda place, rows: make(place, rows) or {},
    "ingest": ingest,
    "columnar": columnar,
    "oracle": oracle,
}


def child(what: str, place: Path, rows: int) -> dict[str, Any]:
    """One measurement in a process of its own, with its peak memory and all the CPU it took, imports included."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.bench_data",
        "--child",
        what,
        str(place),
        str(rows),
    ]
    environment = {**os.environ, "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr[-3000:])
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def answer(what: str, place: Path, rows: int) -> None:
    found = MEASURED[what](place, rows)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({**found, "peak_mb": round(peak / 1024), "cpu_s": time.process_time()}))


def by_size(place: Path, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for rows in sizes:
        write_manifest(place, rows)
        child("make", place, rows)
        rounds = []
        for _ in range(ROUNDS):
            subprocess.run(["rm", "-rf", str(place / "store")], check=True)
            rounds.append(child("ingest", place, rows))
        seconds, peak = statistics.median(each["seconds"] for each in rounds), max(each["peak_mb"] for each in rounds)
        found.append({"rows": rows, "seconds": round(seconds, 3), "peak_mb": peak, "aside": rounds[0]["quarantined"]})
        print(
            f"ingest {rows:>9,} rows: {seconds:7.2f} s, {peak:5d} MB, {rounds[0]['quarantined']} set aside", flush=True
        )
    return found


def exponent(small: dict[str, Any], large: dict[str, Any]) -> float:
    """p in seconds ~ rows ** p; ten times the rows take 10 ** p times as long."""
    return math.log(large["seconds"] / small["seconds"]) / math.log(large["rows"] / small["rows"])


def side_by_side(place: Path, rows: int) -> dict[str, Any]:
    rounds = [(child("columnar", place, rows), child("oracle", place, rows)) for _ in range(ROUNDS)]
    for ours, theirs in rounds:
        print(f"contract {rows:,} rows: {ours['seconds']:.2f} s, {ours['peak_mb']} MB; ", end="")
        print(f"Great Expectations: {theirs['seconds']:.2f} s, {theirs['peak_mb']} MB", flush=True)
    median = {
        name: [statistics.median(pair[side][name] for pair in rounds) for side in (0, 1)]
        for name in ("seconds", "peak_mb", "cpu_s")
    }
    differ = [
        pair for pair in zip(rounds[0][0]["outcomes"], rounds[0][1]["outcomes"], strict=True) if pair[0] != pair[1]
    ]
    for ours, theirs in differ:
        print(f"DIFFERENT: {ours} and {theirs}")
    return {
        "rows": rows,
        "rules": len(rounds[0][0]["outcomes"]),
        "broken": sum(not passed for _, passed, _ in rounds[0][0]["outcomes"]),
        "equal": not differ,
        "seconds": [round(each, 3) for each in median["seconds"]],
        "speedup": round(median["seconds"][1] / median["seconds"][0], 1),
        "cpu_ratio_with_imports": round(median["cpu_s"][1] / median["cpu_s"][0], 1),
        "memory_ratio": round(median["peak_mb"][1] / median["peak_mb"][0], 1),
    }


def main(quick: bool) -> int:
    sizes, compared = (tuple(size // 10 for size in SIZES), COMPARED // 10) if quick else (SIZES, COMPARED)
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as scratch:
        sized = by_size(Path(scratch), sizes)
        beside = side_by_side(Path(scratch), compared)
    exponents = [round(exponent(small, large), 2) for small, large in pairwise(sized)]
    bounds = {
        "linear": exponents[-1] <= MAX_EXPONENT,
        "memory": sized[-1]["peak_mb"] <= MAX_PEAK_MB,
        "equal": beside["equal"] and beside["broken"] > 0,
    }
    if not quick:  # what is fixed a run weighs too much in small ones
        bounds["speed"] = beside["speedup"] >= MIN_SPEEDUP
    per_decade = [round(10**each, 1) for each in exponents]
    figures = {"sizes": sized, "exponents": exponents, "ratio_per_decade": per_decade, "great_expectations": beside}
    print(json.dumps({"ok": all(bounds.values()), "bounds": bounds, **figures}))
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--child", nargs=3)
    given = asked.parse_args()
    if given.child:
        answer(given.child[0], Path(given.child[1]), int(given.child[2]))
    else:
        sys.exit(main(given.quick))
