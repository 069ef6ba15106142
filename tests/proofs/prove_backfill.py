"""Backfills change nothing that lives: `make prove-backfill`.

On a stack of its own (another home, free ports, all seven DAGs switched on) and data of its own (one CSV a day), by
Airflow's real command line:

1. `ingest` is backfilled over sixty days with eight active runs, then again with reprocess-behavior completed, each
   time with a live run beside it. The second round must run again, find the same ids, and rewrite not one file.
2. `retrain` is backfilled over past weeks, which is a walk-forward backtest, and again: the same folds to the byte.

Before the second round a model is trained and made champion. At the end only the two live runs may have announced
anything, the champion must not have moved, and no run may exist that a backfill would have had to wake.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from include.data.wiring import open_snapshot_store
from include.embedded.commands.airflow_api import AirflowApi, wait_for
from include.embedded.stack.stack import Stack
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, Intent, JobRequest, JobResult
from include.kernel.wiring import open_ledger
from include.manifest import DEFAULT_PATH, read_manifest
from include.registry.wiring import open_registry
from include.training.wiring import open_backtest_store
from tests import ground

FIRST = date(2026, 6, 1)  # a Monday
ROWS = 60
ACTIVE = 8
PROGRAMS = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "mlflow")
DAGS = ("ingest", "monitor", "watch", "retrain", "train", "deploy", "rollback")
SCHEDULED = ("ingest", "monitor", "retrain")  # each runs once when it is switched on
SILENT = ("drift.detected", "training.requested", "model.blessed", "model.live")
LOUD = ("drift.detected", "retraining.approved", "gate.passed", "gate.refused", "model.blessed", "deploy.wanted")


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


# --- a domain of its own ----------------------------------------------------------------------------------------------


def write_day(place: Path, day: date) -> None:
    """Customers of one day; who pays much and calls often, leaves. The same day is the same file."""
    draw = np.random.default_rng(day.toordinal())
    lines = ["customer,tenure,plan,spend,calls,outcome"]
    for number in range(ROWS):
        tenure, spend, calls = int(draw.integers(0, 120)), round(float(draw.uniform(5, 300)), 2), int(draw.poisson(3))
        leaves = draw.uniform() < 1 / (1 + np.exp(2.0 - spend / 90 - calls / 3 + tenure / 50))
        plan = draw.choice(["basic", "plus", "pro"])
        lines.append(f"C{day:%m%d}-{number:03d},{tenure},{plan},{spend},{calls},{'left' if leaves else 'stayed'}")
    (place / f"{day}.csv").write_text("\n".join(lines) + "\n")


def write_manifest(place: Path) -> Path:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    del content["groups"]  # of columns this domain has not
    content |= {
        "name": "churn",
        "source": {"kind": "files", "path": f"{place}/{{day}}.csv"},
        "label": {"column": "outcome", "positive": "left", "negative": "stayed", "delay_days": 3},
        "contract": {
            "id": "customer",
            "rows": {"min": 20, "max": 5000},
            "columns": {
                "tenure": {"kind": "number", "min": 0, "max": 120},
                "plan": {"kind": "category", "values": ["basic", "plus", "pro"]},
                "spend": {"kind": "number", "min": 0, "max": 5000},
                "calls": {"kind": "number", "min": 0, "max": 100},
            },
        },
    }
    content["train"] |= {
        "window_days": 14,
        "holdout_days": 4,
        "min_rows": 200,
        "candidates": {"logistic": {"C": 1.0}},
    }
    path = place / "pipeline.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


# --- what is looked at ------------------------------------------------------------------------------------------------


@dataclass
class Proof:
    stack: Stack
    days: int
    weeks: int
    checks: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.stack.settings
        self.api = AirflowApi(settings.airflow_url, settings.user, settings.password)
        self.environment = {**os.environ, **self.stack.build_env()}

    def must(self, sentence: str, held: bool, seen: object = "") -> None:
        self.checks[sentence] = held
        say(f"{'held' if held else 'BROKEN'}: {sentence}" + ("" if held else f" ({seen})"))

    def day(self, number: int) -> date:
        return FIRST + timedelta(days=number)

    def switch_on(self) -> None:
        wait_for("all DAGs in Airflow", lambda: True if set(DAGS) <= self.api.list_dag_ids() else None, 120)
        for dag in DAGS:
            self.api.unpause(dag)
        for dag in SCHEDULED:
            self.api.wait_for_next_run(dag, set(), 180)
        say("seven DAGs on; the scheduled ones ran and found no data yet")

    def backfill(self, dag: str, first: date, last: date, reprocess: str) -> float:
        """By the command line, to its end. Returns seconds."""
        began = time.monotonic()
        known = self.backfills(dag)
        airflow = str(Path(sys.executable).with_name("airflow"))
        wish = ["--dag-id", dag, "--from-date", str(first), "--to-date", str(last), "--max-active-runs", str(ACTIVE)]
        command = [airflow, "backfill", "create", *wish, "--reprocess-behavior", reprocess]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-1500:]}")
        [number] = self.backfills(dag) - known
        if dag == "ingest":
            self.live_run(last)
        self._follow(dag, number)
        return time.monotonic() - began

    def _follow(self, dag: str, number: int) -> None:
        said = 0.0

        def look() -> str | None:
            nonlocal said
            if time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"{dag}: {dict(Counter(run['state'] for run in self.backfilled(dag)))}")
            found: str | None = self.api.get(f"/backfills/{number}")["completed_at"]
            return found

        wait_for(f"the end of the backfill of {dag}", look, 1800, interval=1.0)

    def backfills(self, dag: str) -> set[int]:
        return {int(each["id"]) for each in self.api.get("/backfills", dag_id=dag)["backfills"]}

    def backfilled(self, dag: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.api.get(f"/dags/{dag}/dagRuns", limit=100, offset=len(found), order_by="id")["dag_runs"]
            found += page
            if len(page) < 100:
                return [run for run in found if run["run_type"] == "backfill"]

    def live_run(self, last: date) -> None:
        """A live run beside the backfill, of a day it does not touch; it must end well while the backfill goes on."""
        day = last + timedelta(days=1 + len(self.figures.setdefault("live_s", [])))
        began = time.monotonic()
        run_id = self.api.start_run("ingest", day=str(day), as_of=str(day + timedelta(days=1)))
        state = self.api.wait_for_end("ingest", run_id, 600)["state"]
        busy = any(run["state"] in ("queued", "running") for run in self.backfilled("ingest"))
        self.figures["live_s"].append(round(time.monotonic() - began, 1))
        self.figures["live_beside_a_running_backfill"] = self.figures.get("live_beside_a_running_backfill", 0) + busy
        tasks = self.api.read_task_states("ingest", run_id)
        self.must(f"the live run of {day} beside the backfill ended well", state == "success", tasks)
        self.must(f"it announced {day}", tasks.get("announce") == "success", tasks)

    def button(self) -> str:
        """Where the button Report on the task of the newest fold leads; empty where there is none."""
        run_id = self.backfilled("retrain")[-1]["dag_run_id"]
        links = self.api.get(f"/dags/retrain/dagRuns/{run_id}/taskInstances/backtest/links")["extra_links"]
        return str(links["Report"] or "")

    def announced(self) -> list[str]:
        return [event["extra"]["day"] for event in self.api.list_asset_events("dataset.validated")]

    def lying_there(self, folder: str) -> dict[str, tuple[int, int, int]]:
        """Every file with inode, time of its last change and size: a file rewritten in place or replaced differs."""
        root = self.stack.settings.store_dir / folder
        found = {path: path.stat() for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")}
        return {str(path.relative_to(root)): (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in found.items()}

    def become_champion(self, as_of: date) -> str:
        """A real model, trained by the job as the operator starts it, registered and promoted."""
        request = JobRequest(job="train", run_key="prove-backfill", as_of=as_of, intent=Intent.LIVE)
        place = self.stack.settings.home / "champion.json"
        environment = {**self.environment, REQUEST_VARIABLE: request.model_dump_json(), RESULT_VARIABLE: str(place)}
        command = [sys.executable, "-W", "ignore", "-m", "include.jobs"]
        subprocess.run(command, env=environment, check=True, timeout=600, stdout=subprocess.DEVNULL)
        run_id = JobResult.model_validate_json(place.read_text()).outputs["run_id"]
        registry = open_registry(read_manifest().name)
        version = registry.register(run_id, f"runs:/{run_id}/model", "prove-backfill")
        registry.promote(version)
        say(f"version {version}, trained as of {as_of}, is champion")
        return version


# --- the two halves ---------------------------------------------------------------------------------------------------


def prove_ingest(proof: Proof) -> str:
    last, store = proof.day(proof.days - 1), open_snapshot_store()
    proof.figures["first_s"] = round(proof.backfill("ingest", FIRST, last, "none"), 1)
    first = {snapshot.day: snapshot.id for snapshot in store.list_snapshots()}
    proof.must(f"{proof.days} days and one live day are published", len(first) == proof.days + 1, len(first))
    version = proof.become_champion(last + timedelta(days=2))
    before = {folder: proof.lying_there(folder) for folder in ("snapshots", "files", "days")}
    began = {run["dag_run_id"]: run["start_date"] for run in proof.backfilled("ingest")}
    proof.figures["again_s"] = round(proof.backfill("ingest", FIRST, last, "completed"), 1)
    runs = proof.backfilled("ingest")
    again = [run for run in runs if run["start_date"] != began.get(run["dag_run_id"]) and run["state"] == "success"]
    proof.must(f"all {proof.days} days were reprocessed", len(again) == proof.days, len(again))
    now = {snapshot.day: snapshot.id for snapshot in store.list_snapshots()}
    proof.must("the same ids came out", {day: now[day] for day in first} == first)
    after = {folder: proof.lying_there(folder) for folder in before}
    kept = all(after[folder].get(path) == seen for folder in before for path, seen in before[folder].items())
    proof.must(f"none of {sum(map(len, before.values()))} files was rewritten", kept)
    versions = [snapshot for snapshot in store.read_history() if snapshot.day <= last]
    proof.must("every day has one version, known the day after it", all(_on_time(s) for s in versions))
    proof.must("one version a day", len(versions) == proof.days, len(versions))
    proof.figures |= {"days": proof.days, "runs": 2 * proof.days, "files": sum(map(len, before.values()))}
    return version


def _on_time(snapshot: Any) -> bool:
    return bool(snapshot.known_from == snapshot.day + timedelta(days=1))


def prove_backtest(proof: Proof) -> None:
    """Folds of whole weeks that the history can train and judge; the schedule's Mondays are their days."""
    mondays = [proof.day(number) for number in range(0, proof.days, 7)]
    judged = [day for day in mondays if day + timedelta(days=10) <= proof.day(proof.days)][-proof.weeks :]
    span = judged[0], judged[-1] + timedelta(days=1)
    proof.figures["backtest_s"] = round(proof.backfill("retrain", *span, "none"), 1)
    before, folds = proof.lying_there("backtests"), open_backtest_store(read_manifest().digest).read_folds()
    proof.must("one fold a week", [fold.as_of for fold in folds] == judged, [str(fold.as_of) for fold in folds])
    page = open_backtest_store(read_manifest().digest).page.read_text()
    proof.must("the page holds every fold", all(f"{day}</td>" in page for day in judged))
    proof.backfill("retrain", *span, "completed")
    again = proof.lying_there("backtests")
    same = {path: seen for path, seen in before.items() if path.endswith(".json")}
    proof.must("made again, no fold was rewritten", same == {p: s for p, s in again.items() if p.endswith(".json")})
    proof.must("and the page is the same", open_backtest_store(read_manifest().digest).page.read_text() == page)
    states = [proof.api.read_task_states("retrain", run["dag_run_id"]) for run in proof.backfilled("retrain")]
    silent = all((s["backtest"], s["decide"], s["request"]) == ("success", "skipped", "skipped") for s in states)
    proof.must("a backfilled retrain takes no decision and requests nothing", silent, states)
    button = proof.button()
    proof.must("the task's button leads to the page", bool(button) and proof.api.read_page(button) == page, button)
    stranger = httpx.get(button, timeout=30).status_code if button else 0
    proof.must("nobody reads it who is not logged in", stranger == 401, stranger)
    proof.figures |= {"folds": len(folds), "auc": [round(fold.model.auc.value, 3) for fold in folds]}


def prove_silence(proof: Proof, version: str) -> None:
    live = [str(proof.day(proof.days)), str(proof.day(proof.days + 1))]
    announced = proof.announced()
    proof.must("dataset.validated was announced by the two live runs alone", announced == live, announced)
    told = {name: len(proof.api.list_asset_events(name)) for name in SILENT}
    proof.must("nothing else was announced", not any(told.values()), told)
    registry = open_registry(read_manifest().name)
    proof.must("the champion is who it was", registry.find_champion() == version, registry.find_champion())
    with registry.open_client() as client:
        versions = [str(each.version) for each in client.search_model_versions(f"name = '{registry.name}'")]
    proof.must("no version was registered beside it", versions == [version], versions)
    entries = [entry.what for entry in open_ledger().read_entries() if entry.what in LOUD]
    proof.must("nobody was paged: the ledger holds no alarm and no decision", not entries, entries)
    woken = {dag: _woken(proof, dag) for dag in ("watch", "train", "deploy", "rollback")}
    reported = len(proof.api.list_asset_events("monitor.reported"))
    proof.must("only monitor reports woke watch", woken["watch"] <= reported, woken)
    proof.must("no training, release or rollback was started", sum(woken.values()) == woken["watch"], woken)
    retrained = [run["run_type"] for run in proof.api.list_runs("retrain")]
    proof.must("no retrain was triggered by an event", "asset_triggered" not in retrained, retrained)
    proof.must("monitor ran for the live days at most", _woken(proof, "monitor") <= len(live), _woken(proof, "monitor"))


def _woken(proof: Proof, dag: str) -> int:
    return sum(run["run_type"] == "asset_triggered" for run in proof.api.list_runs(dag))


def prove(stack: Stack, days: int, weeks: int) -> Proof:
    ours = ("EVERGREEN_", "MLFLOW_")
    os.environ |= {name: value for name, value in stack.build_env().items() if name.startswith(ours)}
    proof = Proof(stack, days, weeks)
    proof.switch_on()
    version = prove_ingest(proof)
    if weeks:
        prove_backtest(proof)
    prove_silence(proof, version)
    return proof


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--days", type=int, default=60, help="days of history, at least 28 for a backtest")
    options.add_argument("--weeks", type=int, default=4, help="folds of the backtest; 0: none")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-backfill-") as place:
        data = Path(place) / "data"
        data.mkdir()
        for number in range(asked.days + 2):
            write_day(data, FIRST + timedelta(days=number))
        say(f"{asked.days + 2} files of {ROWS} rows written; starting a stack of its own")
        with ground.stack(Path(place), *PROGRAMS, manifest=write_manifest(data)) as stack:
            proof = prove(stack, asked.days, asked.weeks)
    held, asked_for = sum(proof.checks.values()), len(proof.checks)
    ok = held == asked_for and proof.figures.get("live_beside_a_running_backfill", 0) >= 1
    print(json.dumps({"ok": ok, "checks": asked_for, "held": held, **proof.figures}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
