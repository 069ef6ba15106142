"""`make prove-score`: memory does not grow with the rows, and a scoring that was killed ends as if it had not been.

The real job, as a process, on generated days and a served artifact.

1. Days of 1e5 and of 1e6 rows are scored in turns. The peak of resident memory (VmHWM, read by the kernel's own count)
   may differ by a tenth at most.
2. A dry run counts the changes the job makes to its store. Then, in a store as new each time, the job is killed with
   SIGKILL before changes evenly spaced over all of them, and in between, where native code computes: a while after its
   log says that it began with a part. It is run again, and must leave the bytes of the undisturbed run, file by file;
   what was whole when it was killed must not be scored again.
3. Two runs score the same at once: both succeed, and there is one result.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include import manifest as manifests
from include.data.core.snapshots import Snapshot
from include.data.store.content import read_content
from include.data.store.local_store import LocalSnapshotStore
from include.model import artifact
from include.model.compiled import compiling
from include.model.integrity.artifact_integrity import copy_verified
from include.scoring.core.scoring import PART_ROWS
from tests import credit, ground

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 8, 1)
SMALL, LARGE, KILLED_ROWS = 100_000, 1_000_000, 3 * PART_ROWS - 1000
ROUNDS = 2
POINTS = 12  # changes of the store to be killed at, evenly spaced over all of them
# kills in between: seconds after this stands in the log; a part takes a tenth of a second and more
MOMENTS = (("version 1", 0.01), ("version 1", 0.06), ("part-00000", 0.03), ("part-00001", 0.03))
FLAT = 0.10  # by how much two peaks may differ


@dataclass(frozen=True)
class Ended:
    code: int
    seconds: float
    peak_mib: float
    outputs: Mapping[str, Any]
    log: str


class Pipeline:
    """A home with a manifest, a served artifact, and published days of generated rows."""

    def __init__(self, home: Path) -> None:
        self.home, self.days = home, dict[date, Snapshot]()
        self.manifest = ground.write_manifest(home / "pipeline.yaml", {"name": "credit-proof"})
        self.id = manifests.load(self.manifest).contract.id
        self.digests = {kind: self._serve(kind) for kind in ("logistic", "boosting")}

    def _serve(self, kind: str) -> str:
        model, place = credit.trained(kind), self.home / kind
        digest = artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, place)
        copy_verified(place, self.home / "serving" / "artifacts", digest)
        return digest

    def publish(self, store: Path, day: date, rows: int) -> None:
        path = self.home / f"{day}.parquet"
        _write(path, rows, self.id)
        content = read_content(path)
        told = {"source": "generated", "manifest": "m", "expectations": 0}
        self.days[day] = Snapshot(id=content.id, day=day, rows=rows, columns=content.columns, **told)
        LocalSnapshotStore(store).publish(self.days[day], path)

    def score(
        self, store: Path, kind: str, day: date, kill_at: int | None = None, after: tuple[str, float] | None = None
    ) -> Ended:
        """Runs the job to its end, or its death before the `kill_at`-th change, or seconds after a word of its log."""
        result, began = self.home / f"result-{time.monotonic_ns()}.json", time.monotonic()
        log = self.home / f"{result.stem}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "include.jobs"],
                env=self._environment(store, kind, day, result, kill_at),
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            peak = _Peak(process.pid)
            if after:
                _kill(process, log, *after)
            code = process.wait(240)
            mib = peak.close()
        outputs = json.loads(result.read_text()).get("outputs", {}) if result.exists() else {}
        return Ended(code, time.monotonic() - began, mib, outputs, log.read_text(errors="replace"))

    def _environment(self, store: Path, kind: str, day: date, result: Path, kill_at: int | None) -> dict[str, str]:
        pinned = {
            "version": "1",
            "digest": self.digests[kind],
            "days": [{"day": str(day), "snapshot": self.days[day].id}],
        }
        asked = {"job": "score", "run_key": "k", "as_of": "2026-09-01", "intent": "live", "params": {"pinned": pinned}}
        path = [str(ROOT)] if kill_at is None else [str(ROOT / "tests/proofs/killing"), str(ROOT)]
        return os.environ | {
            "EVERGREEN_MANIFEST": str(self.manifest),
            "EVERGREEN_STORE": str(store),
            "EVERGREEN_SERVING_DIR": str(self.home / "serving"),
            "EVERGREEN_JOB_REQUEST": json.dumps(asked),
            "EVERGREEN_JOB_RESULT": str(result),
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "2",
            "KILL_AT": str(kill_at or 0),
            "KILL_LOG": str(self.home / "kills"),
            "KILL_UNDER": str(store),
        }


def _kill(process: subprocess.Popen[bytes], log: Path, word: str, seconds: float) -> None:
    while process.poll() is None and word not in log.read_text(errors="replace"):
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()


class _Peak:
    """The largest VmHWM seen; that of the wait status would count what the process that forked it held."""

    def __init__(self, pid: int) -> None:
        self._path, self._mib, self._over = Path(f"/proc/{pid}/status"), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            try:
                lines = self._path.read_text().splitlines()
            except OSError:
                return
            self._mib = max([self._mib, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))])

    def close(self) -> float:
        self._over.set()
        self._thread.join()
        return self._mib


def _write(path: Path, rows: int, id_column: str) -> None:
    """Rows drawn from the example's, a group at a time."""
    rng, known = np.random.default_rng(rows), credit.data()
    known = known.astype(dict.fromkeys(known.select_dtypes("number"), "float64"))
    schema, writer = None, None
    for first in range(0, rows, 131_072):
        count = min(131_072, rows - first)
        drawn = known.iloc[rng.integers(0, len(known), count)].reset_index(drop=True)
        drawn.insert(0, id_column, pd.Series([f"R{number:08}" for number in range(first, first + count)]))
        table = pa.Table.from_pandas(drawn, schema=schema, preserve_index=False).replace_schema_metadata()
        schema = table.schema
        writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(pipeline: Pipeline) -> dict[str, Any]:
    """Peaks and rows a second of both sizes, in turns; the median of the rounds counts."""
    found: dict[int, list[Ended]] = {SMALL: [], LARGE: []}
    for number in range(ROUNDS):
        for rows, day in ((SMALL, DAY), (LARGE, DAY + timedelta(days=1))):
            store = pipeline.home / f"store-{number}-{rows}"
            pipeline.publish(store, day, rows)
            ended = pipeline.score(store, "logistic", day)
            _must(ended.code == 0 and ended.outputs["rows"] == rows, f"{rows} rows: {ended.log[-800:]}")
            found[rows].append(ended)
            print(f"{rows:9,} rows: {ended.seconds:5.2f} s, peak {ended.peak_mib:6.1f} MiB", flush=True)
            shutil.rmtree(store)
    peaks = {rows: float(np.median([each.peak_mib for each in all_])) for rows, all_ in found.items()}
    took = {rows: float(np.median([each.seconds for each in all_])) for rows, all_ in found.items()}
    apart = peaks[LARGE] / peaks[SMALL] - 1
    return {
        "peak_mib_1e5": round(peaks[SMALL], 1),
        "peak_mib_1e6": round(peaks[LARGE], 1),
        "apart": round(apart, 4),
        "seconds_1e5": round(took[SMALL], 2),
        "seconds_1e6": round(took[LARGE], 2),
        "rows_per_s": round((LARGE - SMALL) / (took[LARGE] - took[SMALL])),
        "flat": abs(apart) <= FLAT,
    }


# --- kills ----------------------------------------------------------------------------------------------------------


class Kills:
    """One day scored again and again in stores as new, killed each time elsewhere."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._number = pipeline, 0
        self._new = pipeline.home / "as-new"
        pipeline.publish(self._new, DAY, KILLED_ROWS)
        self.undisturbed, self.points = self._dry_run()

    def _dry_run(self) -> tuple[dict[str, bytes], list[int]]:
        store = self.store()
        ended = self._pipeline.score(store, "boosting", DAY, kill_at=0)
        _must(ended.code == 0, ended.log[-800:])
        writes = int((self._pipeline.home / "kills").read_text().split()[0])
        spaced = np.unique(np.linspace(1, writes, POINTS).astype(int)).tolist()
        return _result(store), spaced

    def store(self) -> Path:
        self._number += 1
        place = self._pipeline.home / f"kill-{self._number}"
        shutil.copytree(self._new, place)
        return place

    def at(self, what: str, **where: Any) -> bool:
        """Kills there, runs again, looks."""
        store = self.store()
        killed = self._pipeline.score(store, "boosting", DAY, **where)
        whole = _recorded(store)
        finished = any(name.endswith("scores.json") for name in _result(store))
        again = self._pipeline.score(store, "boosting", DAY)
        problems = []
        if killed.code != -9:
            problems.append(f"it was not killed but ended with {killed.code}")
        if again.code != 0:
            problems.append(f"the retry ended with {again.code}: {again.log[-300:]}")
        elif again.outputs["parts_scored"] != (0 if finished else again.outputs["parts"] - whole):
            problems.append(f"{whole} parts were there, and {again.outputs['parts_scored']} were scored again")
        if _result(store) != self.undisturbed:
            problems.append("the result has other bytes")
        told = "; ".join(problems) or f"{whole} of {again.outputs['parts']} parts were there, same bytes"
        print(f"{what}: {told}", flush=True)
        shutil.rmtree(store)
        return not problems

    def in_between(self) -> list[bool]:
        """Where native code computes or writes, which an audit hook does not see."""
        return [self.at(f"{seconds:.2f} s after {word!r}", after=(word, seconds)) for word, seconds in MOMENTS]

    def at_once(self) -> bool:
        store, ended = self.store(), list[Ended]()
        runs = [
            threading.Thread(target=lambda: ended.append(self._pipeline.score(store, "boosting", DAY)))
            for _ in range(2)
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        fine = [each.code for each in ended] == [0, 0] and _result(store) == self.undisturbed
        print(f"two at once: {[each.code for each in ended]}, {'one result' if fine else 'not as it should be'}")
        return fine


def _result(store: Path) -> dict[str, bytes]:
    """What lies under the prefix, drafts of dead writers included: none may be left by a run that ended."""
    found = sorted(path for path in (store / "scores").rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def _recorded(store: Path) -> int:
    return sum(Path(name).name.startswith("part-") and name.endswith(".json") for name in _result(store))


def _must(fine: bool, what: str) -> None:
    if not fine:
        raise SystemExit(f"{what}\n{json.dumps({'ok': False, 'why': what[-200:]})}")


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="evergreen-score-proof-") as home:
        pipeline = Pipeline(Path(home))
        told = memory(pipeline)
        kills = Kills(pipeline)
        cases = [kills.at(f"before change {point:3}", kill_at=point) for point in kills.points]
        cases += kills.in_between()
        once = kills.at_once()
    ok = bool(told.pop("flat")) and all(cases) and once and len(cases) >= 10
    figures = {**told, "kills": f"{sum(cases)} of {len(cases)}", "two_at_once": once}
    print(json.dumps({"ok": ok, **figures, "seconds": round(time.monotonic() - began)}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
