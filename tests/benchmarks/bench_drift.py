"""Drift of 20 columns against a stored profile: time, memory and exactness beside Evidently and scipy.

    python -m tests.benchmarks.bench_drift [rows ...]

Everything is measured in a process of its own. Ours is timed from the files (stored profile and Parquet) to the
verdicts; Evidently from frames that are in memory already to its result, so reading is a gift to it. scipy's
two-sample test over whole columns says what the distances are exactly. Half of the columns moved, by a hundredth to
half a sigma. Evidently sees a million rows on both sides.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.monitoring.core.profiles import build_number_baseline, encode_profile
from tests.proofs.drift_shapes import NUMBERS

SIZES = (100_000, 1_000_000, 10_000_000)
REFERENCE, BESIDE = 1_000_000, 1_000_000
MOVED = {name: 0.01 * 50 ** (i / 9) for i, name in enumerate(list(NUMBERS)[::2])}
ALPHA, EXACT = 0.05, 1e-4
PRESET, DEFAULT, RSS_MB, FLAT, EXPONENT = 15.0, 20.0, 300.0, 0.1, (0.9, 1.1)
GROUP = 131_072


def main(sizes: tuple[int, ...] = SIZES) -> int:
    beside = min(BESIDE, max(sizes))
    with tempfile.TemporaryDirectory(prefix="evergreen-drift-") as scratch:
        place = Path(scratch)
        write(place / "reference.parquet", min(REFERENCE, 10 * beside), seed=1, moved={})
        store_profile(place)
        found = {rows: measured(place, rows) for rows in sizes}
        evidently = {rule: child(place, rule, beside) for rule in ("evidently_ks", "evidently_default")}
    figures = summary(found, evidently, beside)
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def measured(place: Path, rows: int) -> dict[str, Any]:
    """Ours and scipy's figures for a file of so many rows."""
    path = place / f"{rows}.parquet"
    write(path, rows, seed=rows, moved=MOVED)
    ours, exact = child(place, "ours", rows), child(place, "exact", rows)
    off = max(abs(ours["distances"][name] - exact["distances"][name]) for name in NUMBERS)
    same = ours["drifted"] == exact["drifted"]
    told(f"{rows:>10,} rows: D off by {off:.1e}, verdicts equal: {same}")
    return {**ours, "off": off, "same": same, "exact_seconds": exact["seconds"]}


def summary(found: dict[int, Any], evidently: dict[str, Any], beside: int) -> dict[str, Any]:
    memory = [each["rss_mb"] for each in found.values()]
    ours = found[beside]
    faster = {rule: each["seconds"] / ours["seconds"] for rule, each in evidently.items()}
    exponents = [round(slope(found, *pair), 3) for pair in zip(list(found)[:-1], list(found)[1:], strict=True)]
    held = {
        "preset": faster["evidently_ks"] >= PRESET,
        "default": faster["evidently_default"] >= DEFAULT,
        "exact": max(each["off"] for each in found.values()) <= EXACT,
        "verdicts": all(each["same"] for each in found.values())
        and ours["drifted"] == evidently["evidently_ks"]["drifted"],
        "memory": max(memory) <= RSS_MB and max(memory) / min(memory) <= (1 + FLAT) / (1 - FLAT),
        "linear": all(EXPONENT[0] <= each <= EXPONENT[1] for each in exponents),
    }
    return {
        "ok": all(held.values()),
        "held": held,
        "seconds": {str(rows): round(each["seconds"], 3) for rows, each in found.items()},
        "counting_s": {str(rows): round(each["counting"], 3) for rows, each in found.items()},
        "scipy_s": {str(rows): round(each["exact_seconds"], 2) for rows, each in found.items()},
        "rss_mb": {str(rows): round(each["rss_mb"], 1) for rows, each in found.items()},
        "exponents": exponents,
        "d_off": {str(rows): float(f"{each['off']:.2e}") for rows, each in found.items()},
        "evidently_s": {rule: round(each["seconds"], 1) for rule, each in evidently.items()},
        "evidently_rss_mb": {rule: round(each["rss_mb"]) for rule, each in evidently.items()},
        "faster": {rule: round(times, 1) for rule, times in faster.items()},
        "drifted": {"ours": len(ours["drifted"]), **{rule: len(each["drifted"]) for rule, each in evidently.items()}},
    }


def slope(found: dict[int, Any], few: int, many: int) -> float:
    """The exponent of time in rows; what does not depend on rows, loading the profile, is not in it."""
    return math.log(found[many]["counting"] / found[few]["counting"]) / math.log(many / few)


def write(path: Path, rows: int, seed: int, moved: dict[str, float]) -> None:
    rng, writer = np.random.default_rng(seed), None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        drawn = {name: shape.drawn(rng, count, moved.get(name, 0.0)) for name, shape in NUMBERS.items()}
        table = pa.table({name: pa.array(values, from_pandas=True) for name, values in drawn.items()})
        writer = writer or pq.ParquetWriter(path, table.schema, use_dictionary=False)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def store_profile(place: Path) -> None:
    reference = pq.ParquetFile(place / "reference.parquet", pre_buffer=False)
    made = {name: build_number_baseline(reference.read([name])[name].to_numpy()) for name in NUMBERS}
    text = json.dumps({name: encode_profile(profile) for name, profile in made.items()})
    (place / "baseline.json").write_text(text)
    told(f"profile of {reference.metadata.num_rows:,} rows: {len(text) / 1e6:.1f} MB")


def child(place: Path, what: str, rows: int) -> dict[str, Any]:
    """The figures of a process that does this one thing."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_drift", what, str(place), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} on {rows:,} rows failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told(f"{rows:>10,} rows: {what} took {figures['seconds']:.2f} s and {figures['rss_mb']:.0f} MB")
    return figures


def ours(place: Path, rows: int) -> dict[str, Any]:
    """From the stored profile and the file to the verdicts. A small file is counted thrice, for its time is short."""
    from include.kernel.inference.statistics import compute_ks_p_value
    from include.monitoring.core.profiles import NumberProfile, decode_profile
    from include.monitoring.profile_stream import count_files

    began = time.perf_counter()
    stored = json.loads((place / "baseline.json").read_text())
    baseline = {
        name: profile for name, each in stored.items() if isinstance(profile := decode_profile(each), NumberProfile)
    }
    loaded, counting = time.perf_counter() - began, math.inf
    for _ in range(3 if rows <= SIZES[0] else 1):
        began = time.perf_counter()
        current = count_files([place / f"{rows}.parquet"], baseline)
        distances = {name: each.measure_distance(current[name]) for name, each in baseline.items()}  # type: ignore[arg-type]
        sizes = {name: (each.known, current[name].known) for name, each in baseline.items()}
        drifted = [name for name, d in distances.items() if compute_ks_p_value(d, *sizes[name]) < ALPHA]
        counting = min(counting, time.perf_counter() - began)
    return {"seconds": loaded + counting, "counting": counting, "distances": distances, "drifted": drifted}


def exact(place: Path, rows: int) -> dict[str, Any]:
    """scipy's two-sample test over whole columns, one after the other."""
    from scipy import stats

    files = [pq.ParquetFile(place / f"{name}.parquet", pre_buffer=False) for name in ("reference", str(rows))]
    began, found = time.perf_counter(), {}
    for name in NUMBERS:
        columns = [file.read([name])[name].to_numpy() for file in files]
        found[name] = stats.ks_2samp(*(column[~np.isnan(column)] for column in columns), method="asymp")
    drifted = [name for name, each in found.items() if each.pvalue < ALPHA]
    distances = {name: float(each.statistic) for name, each in found.items()}
    return {"seconds": time.perf_counter() - began, "distances": distances, "drifted": drifted}


def evidently_ks(place: Path, rows: int) -> dict[str, Any]:
    return _evidently(place, rows, num_method="ks", num_threshold=ALPHA)


def evidently_default(place: Path, rows: int) -> dict[str, Any]:
    return _evidently(place, rows)


def _evidently(place: Path, rows: int, **rule: Any) -> dict[str, Any]:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = DataDefinition(numerical_columns=list(NUMBERS))
    tables = [pd.read_parquet(place / f"{name}.parquet") for name in (rows, "reference")]
    began = time.perf_counter()
    current, reference = (Dataset.from_pandas(table, data_definition=columns) for table in tables)
    result = Report([DataDriftPreset(**rule)]).run(current, reference).dict()
    took = time.perf_counter() - began
    return {"seconds": took, "drifted": [each["config"]["column"] for each in result["metrics"] if _drifted(each)]}


def _drifted(metric: dict[str, Any]) -> bool:
    """A p-value drifts below its threshold, a distance from it upwards."""
    config = metric["config"]
    if "column" not in config:
        return False
    small = config["method"] == "ks" or "p_value" in config["method"]
    return bool(metric["value"] < config["threshold"] if small else metric["value"] >= config["threshold"])


def peak_mb() -> float:
    """VmHWM, which belongs to this program; getrusage would still remember the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def told(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


PARTS = {each.__name__: each for each in (ours, exact, evidently_ks, evidently_default)}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        answer = PARTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
        print(json.dumps({**answer, "rss_mb": peak_mb()}))
        sys.exit()
    sys.exit(main(tuple(map(int, sys.argv[1:])) or SIZES))
