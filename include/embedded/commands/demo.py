"""`make demo`: plays the whole loop in the running Airflow, through its REST API, and checks every step.

Nothing here reaches around the product: days are ingested, models trained and releases made by the seven DAGs, so that
everything can be looked at in the UI afterwards. Two things are staged, openly: later days come from another market
(scenario `new_market`), and one release is built wrong on purpose.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from include.alerting.core import alert_rules
from include.data.spec import ReplaySource
from include.data.wiring import open_snapshot_store
from include.embedded.commands.airflow_api import AirflowApi, PlayStopped, wait_for
from include.embedded.commands.traffic import Traffic, rows_of
from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack.errors import StackError
from include.embedded.stack.stack import Stack
from include.kernel.environment import ROOT, read_setting
from include.kernel.files import write_atomic
from include.kernel.wiring import open_ledger
from include.kernel.words import ledger_kinds as kinds
from include.manifest import Manifest, read_manifest
from include.model.blessing import blessing as blessings
from include.monitoring.wiring import open_report_store
from include.registry.mlflow_registry import MlflowRegistry
from include.registry.wiring import open_registry
from include.serving.words import headers

HISTORY_DAYS = 30
DRIFTED_DAYS = 12
REQUESTS_PER_SECOND = 25.0
MIN_REQUESTS = 5_000
MARK = "demo.json"
DAGS = ("ingest", "monitor", "watch", "retrain", "train", "deploy", "rollback")


@dataclass
class Told:
    """One line of the final table."""

    step: str
    happened: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    link: str = ""
    ok: bool = False


class Demo:
    def __init__(self, settings: EmbeddedSettings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.manifest: Manifest = read_manifest()
        self.told: list[Told] = []
        source = self.manifest.source
        if not isinstance(source, ReplaySource):
            raise PlayStopped(f"The demo plays the replay source, not {source.kind}; unset EVERGREEN_MANIFEST.")
        self.first_day = source.first_day
        rows = rows_of(ROOT / source.path, self.manifest)
        self.traffic = Traffic(settings.serving_url, rows, REQUESTS_PER_SECOND)

    def play(self) -> bool:
        began = time.monotonic()
        steps: tuple[tuple[str, Callable[[Told], None]], ...] = (
            ("stack up", self._up),
            ("backfill history", self._backfill),
            ("first model live", self._first_model),
            ("drifted days arrive", self._drifted_days),
            ("drift detected", self._drift_detected),
            ("challenger wins the gate", self._challenger),
            ("blue-green switch", self._switch),
            ("bad candidate refused", self._bad_candidate),
            ("bad release kept from traffic", self._bad_release),
            ("rollback", self._rollback),
            ("traffic", self._traffic),
        )
        ok = all(self._step(name, act) for name, act in steps)  # the first step that fails ends the play
        self.traffic.stop()
        self._report(ok, time.monotonic() - began)
        return ok

    def _step(self, name: str, act: Callable[[Told], None]) -> bool:
        told, began = Told(name), time.monotonic()
        self.told.append(told)
        self.console.rule(f"[bold]{name}", align="left")
        try:
            act(told)
            told.ok = True
        except PlayStopped as stopped:
            told.happened = f"FAILED: {stopped}"
        except Exception as error:  # the table is shown whatever happens
            self.console.print_exception()
            told.happened = f"FAILED: {type(error).__name__}: {error}"
        told.seconds = round(time.monotonic() - began, 1)
        self.console.print(f"{told.happened} [dim]({told.seconds:g} s)[/]")
        return told.ok

    # --- the steps ------------------------------------------------------------------------------------------------

    def _up(self, told: Told) -> None:
        stack = Stack(self.settings, self.console)
        stack.up()
        os.environ.update(stack.environment())
        self.api = AirflowApi(self.settings.airflow_url, self.settings.user, self.settings.password)
        wait_for("all DAGs in Airflow", lambda: True if set(DAGS) <= self.api.dag_ids() else None, 60)
        _must(not self.api.import_errors(), f"import errors: {self.api.import_errors()}")
        for dag in DAGS:
            self.api.unpause(dag)
        for dag in ("ingest", "monitor", "retrain"):  # each has a schedule, and finds that there is nothing to do yet
            self.api.next_run(dag, set(), 120)
        told.happened, told.link = "healthy; seven DAGs on, the scheduled ones ran and found no data yet", self.api.base

    def _backfill(self, told: Told) -> None:
        first, last = self._day(0), self._day(HISTORY_DAYS - 1)
        known = self.api.asset_events("dataset.validated")
        number = self.api.backfill("ingest", str(first), str(last), active=4)
        self._progress("days", HISTORY_DAYS, lambda: len(open_snapshot_store().snapshots()), 600)
        ended = wait_for("the backfill's end", lambda: self.api.get(f"/backfills/{number}")["completed_at"], 120)
        days = [snapshot.day for snapshot in open_snapshot_store().snapshots()]
        _must(days == [self._day(n) for n in range(HISTORY_DAYS)], f"ingested days are {days}")
        _must(self.api.asset_events("dataset.validated") == known, "a backfill raised a live event")
        rows = sum(snapshot.rows for snapshot in open_snapshot_store().snapshots())
        told.numbers = {"days": len(days), "rows": rows, "completed_at": ended}
        told.happened = f"{len(days)} days, {rows} real rows, {first} to {last}; no live event"
        told.link = self.api.url("ingest")

    def _first_model(self, told: Told) -> None:
        trained, deployed = self.api.run_ids("train"), self.api.run_ids("deploy")
        self._ended_well("retrain", self.api.trigger("retrain"), 120)
        gate = self._gate_of(self.api.next_run("train", trained, 240))
        release = self._released(self.api.next_run("deploy", deployed, 240))
        _must(release["version"] == "1" and release["outcome"] == "done", f"release: {release}")
        self._serves("1")
        self.traffic.start()
        told.numbers = {"version": "1", "gate": _short(gate), "steps": release["steps"]}
        told.happened = f"version 1 live; {gate['sentence']}; steady traffic starts"
        told.link = self.api.url("deploy")

    def _drifted_days(self, told: Told) -> None:
        self.known = {dag: self.api.run_ids(dag) for dag in ("train", "deploy", "retrain")}
        days = [self._day(HISTORY_DAYS + n) for n in range(DRIFTED_DAYS)]
        runs = [
            self.api.trigger("ingest", day=str(day), as_of=str(day + timedelta(days=1)), scenario="new_market")
            for day in days  # known when they ended, not today: the play runs in the data's time
        ]
        self._progress("days", DRIFTED_DAYS, lambda: len(open_snapshot_store().snapshots()) - HISTORY_DAYS, 300)
        for run in runs:
            self._ended_well("ingest", run, 60)
        rows = sum(s.rows for s in open_snapshot_store().snapshots() if s.day in days)
        told.numbers = {"days": len(days), "rows": rows}
        told.happened = f"{len(days)} days, {rows} rows from another market, {days[0]} to {days[-1]}"
        told.link = self.api.url("ingest")

    def _drift_detected(self, told: Told) -> None:
        what = kinds.DRIFT_DETECTED
        event = wait_for(what, lambda: next(iter(self.api.asset_events(what)), None), 180)
        moved = event["extra"]["moved"]
        report = open_report_store().reports()[-1]
        told.numbers = {"moved": moved, "auc_now": report.auc, "auc_low": report.auc_low, "auc_high": report.auc_high}
        features = ", ".join(f"{name} {psi:.2f}" for name, psi in sorted(moved.items(), key=lambda item: -item[1])[:4])
        told.numbers["alert"] = alert = self._alert_of(event["extra"]["key"])
        told.happened = f"PSI of {features}; announced once as {event['extra']['key']}; people are told: {alert}"
        told.link = self.api.url("watch")

    def _alert_of(self, episode: str) -> str:
        """The alert's title and what it links to, as it was written down for the channels."""
        entry = next(entry for entry in open_ledger().entries(kinds.DRIFT_DETECTED) if entry.key == episode)
        alert = alert_rules.of(entry)
        if alert is None:
            raise PlayStopped(f"nobody is told of {episode}")
        written = (Path(read_setting("EVERGREEN_STORE")) / "alerts").rglob("*.json")
        _must(any(alert.title in path.read_text() for path in written), f"the alert of {episode} is not written down")
        return f"{alert.title}, see {alert.link(self.manifest.alerts.runbook)}"

    def _challenger(self, told: Told) -> None:
        retrained = self.api.next_run("retrain", self.known["retrain"], 240)
        why = self.api.returned("retrain", retrained["dag_run_id"], "decide")["sentence"]
        gate = self._gate_of(self.api.next_run("train", self.known["train"], 240))
        _must(gate["verdict"] == "passed" and gate["champion_version"] == "1", f"gate: {gate['sentence']}")
        told.numbers = {"why": why, "gate": _short(gate), "metrics": gate["metrics"]}
        told.happened = f"{why} {gate['sentence']}"
        told.link = self.api.url("train")

    def _switch(self, told: Told) -> None:
        release = self._released(self.api.next_run("deploy", self.known["deploy"], 240))
        _must(release["version"] == "2" and release["outcome"] == "done", f"release: {release}")
        self._serves("2")
        failed = self.traffic.failures.total()
        _must(failed == 0, f"{failed} requests failed: {dict(self.traffic.failures)}")
        told.numbers = {"version": "2", "steps": release["steps"], "requests_so_far": self.traffic.total}
        seconds = dict(release["steps"])
        told.happened = f"version 2 live, switched in {seconds['switch']:.2f} s under traffic, version 1 on standby"
        told.link = self.api.url("deploy")

    def _bad_candidate(self, told: Told) -> None:
        day = str(open_snapshot_store().newest_day())
        run = self.api.trigger("train", as_of=day, columns=["Time"], reason="a candidate that knows one column")
        gate = self._gate_of(self.api.ended("train", run, 240))
        states = self.api.task_states("train", run)
        _must(gate["verdict"] != "passed" and states["bless"] == "skipped", f"gate: {gate['sentence']}, {states}")
        _must(self._find_champion() == "2", "the champion changed")
        told.numbers, told.happened = {"gate": _short(gate)}, gate["sentence"]
        told.link = self.api.url("train", run)

    def _bad_release(self, told: Told) -> None:
        version = build_bad_release(open_registry(self.manifest.name), of="2", key=self._read_key())
        run = self.api.trigger("deploy", version=version, why="the demo tries a release built for another form")
        release = self._released(self.api.ended("deploy", run, 240))
        _must(release["outcome"] == "rejected", f"release: {release}")
        _must(version not in self.traffic.versions, f"version {version} answered live traffic")
        self._serves("2")
        told.numbers = {"version": version, "evidence": release["evidence"]}
        told.happened = f"version {version} never got traffic; {release['evidence']['accepted']['why']}"
        told.link = self.api.url("deploy", run)

    def _rollback(self, told: Told) -> None:
        began = time.monotonic()
        run = self.api.trigger("rollback", why="the demo goes back")
        self._serves("1", 60)
        answered = time.monotonic() - began
        release = self._released(self.api.ended("rollback", run, 120), "rollback")
        _must(release["version"] == "1" and self._find_champion() == "1", f"release: {release}")
        told.numbers = {"seconds_to_first_answer": round(answered, 2), "steps": release["steps"]}
        told.happened = f"version 1 answers {answered:.1f} s after the form was sent; the alias followed"
        told.link = self.api.url("rollback", run)

    def _traffic(self, told: Told) -> None:
        self._progress("requests", MIN_REQUESTS, lambda: self.traffic.total, 240)
        self.traffic.stop()
        versions, failed = dict(self.traffic.versions), self.traffic.failures.total()
        told.numbers = {"total": self.traffic.total, "failed": failed, "by_version": versions}
        told.happened = f"{self.traffic.total} requests, {failed} failed; answered by version {versions}"
        _must(failed == 0, f"{failed} of {self.traffic.total} requests failed: {dict(self.traffic.failures)}")
        told.link = self.settings.serving_url + "/model"

    def _find_champion(self) -> str | None:
        return open_registry(self.manifest.name).champion()

    def _read_key(self) -> Ed25519PrivateKey:
        return blessings.private_key(self.settings.signing_key.read_text())

    # --- what the steps share -------------------------------------------------------------------------------------

    def _day(self, number: int) -> date:
        return self.first_day + timedelta(days=number)

    def _ended_well(self, dag: str, run_id: str, seconds: float) -> None:
        state = self.api.ended(dag, run_id, seconds)["state"]
        _must(state == "success", f"{dag} {run_id} ended {state}: {self.api.url(dag, run_id)}")

    def _gate_of(self, run: dict[str, Any]) -> dict[str, Any]:
        _must(run["state"] == "success", f"train ended {run['state']}: {self.api.url('train', run['dag_run_id'])}")
        gate: dict[str, Any] = self.api.returned("train", run["dag_run_id"], "evaluate")["outputs"]["gate"]
        for check in gate["checks"]:
            mark = "" if check["blocks"] else "(warns)"
            self.console.print(f"  {check['verdict']:<13}{mark:<8}{check['name']:<25}{check['reason']}")
        return gate

    def _released(self, run: dict[str, Any], dag: str = "deploy") -> dict[str, Any]:
        _must(run["state"] == "success", f"{dag} ended {run['state']}: {self.api.url(dag, run['dag_run_id'])}")
        release: dict[str, Any] = self.api.returned(dag, run["dag_run_id"], "rollout")["outputs"]
        self.console.print("  " + "  ".join(f"{step} {seconds:.2f}s" for step, seconds in release["steps"]))
        return release

    def _serves(self, version: str, seconds: float = 15) -> None:
        def look() -> bool | None:
            answer = httpx.get(f"{self.settings.serving_url}/model", timeout=10)
            return True if answer.headers.get(headers.VERSION) == version else None

        wait_for(f"version {version} behind the proxy", look, seconds, interval=0.05)

    def _progress(self, what: str, goal: int, count: Callable[[], int], seconds: float) -> None:
        """Waits for `goal` and says how far it is, at least every five seconds."""
        said = 0.0

        def look() -> bool | None:
            nonlocal said
            done = count()
            if time.monotonic() - said > 5:
                said = time.monotonic()
                self.console.print(f"  {done} of {goal} {what}")
            return True if done >= goal else None

        wait_for(f"{goal} {what}", look, seconds)

    def _report(self, ok: bool, seconds: float) -> None:
        table = Table(title="Evergreen's loop, as it just happened", show_lines=True)
        for heading in ("Step", "What happened", "Seconds", "Look"):
            table.add_column(heading, overflow="fold")
        for told in self.told:
            table.add_row(("✓ " if told.ok else "✗ ") + told.step, told.happened, f"{told.seconds:g}", told.link)
        picture = Console(record=True, width=150)
        picture.print(table)
        picture.save_svg(str(self.settings.home / "demo.svg"), title="make demo")
        document = {
            "ok": ok,
            "wall_seconds": round(seconds, 1),
            "requests_total": self.traffic.total,
            "requests_failed": self.traffic.failures.total(),
            "steps": [asdict(told) for told in self.told],
        }
        write_atomic(self.settings.home / MARK, json.dumps(document, indent=1))
        self.console.print_json(json.dumps({name: document[name] for name in list(document)[:4]}))


def build_bad_release(registry: MlflowRegistry, of: str, key: Ed25519PrivateKey) -> str:
    """Registers a blessed version that agrees with itself and not with the world: it asks for a column nobody sends.

    A mix-up of two builds looks like this, and a signature cannot see it. Returns its version.
    """
    from include.model import artifact
    from include.model.schema import Column

    trusted = {blessings.key_id(key.public_key()): key.public_key()}
    blessing = blessings.verify(registry.blessing(of), trusted, registry.name, of)
    with tempfile.TemporaryDirectory() as scratch:
        place = registry.fetch(of, Path(scratch))
        meta = artifact.read_meta(place)
        golden = tuple(item.model_copy(update={"row": {**item.row, "Salary": 1.0}}) for item in meta.golden)
        columns = (*meta.columns, Column(name="Salary", kind="number", nullable=False))
        digest = artifact.write_meta(meta.model_copy(update={"columns": columns, "golden": golden}), place)
        with registry.client() as client:
            run_id = client.create_run(client.get_experiment_by_name(registry.name).experiment_id).info.run_id
            client.log_artifacts(run_id, str(place), "serving")
            client.set_terminated(run_id)
    version = registry.register(run_id, f"runs:/{run_id}/serving", f"demo-{run_id}")
    changed = {"version": version, "digest": digest, "run_id": run_id, "gate": "a mix-up of the demo"}
    registry.bless(version, blessings.sign(blessing.model_copy(update=changed), key))
    return version


def _must(held: bool, problem: str) -> None:
    if not held:
        raise PlayStopped(problem)


def _short(gate: dict[str, Any]) -> dict[str, Any]:
    """The checks with their intervals, without prose."""
    checks = {c["name"]: [round(c[part], 4) for part in ("value", "low", "high")] for c in gate["checks"]}
    return {"verdict": gate["verdict"], "rows": gate["rows"], **checks}


def _fresh(settings: EmbeddedSettings, console: Console) -> None:
    """A play needs an empty stage. An earlier play is cleared away; anything else is somebody's and is left alone."""
    stack = Stack(settings, console)
    if (settings.home / MARK).exists():
        console.print("Clearing away the earlier demo.")
        stack.reset()
    elif any((settings.store_dir / "days").glob("*.json")):
        raise PlayStopped(
            f"{settings.home} holds data that no demo put there; run `make reset` to delete it, or set EVERGREEN_HOME "
            "to another place, and run `make demo` again."
        )


def main() -> None:
    settings, console = EmbeddedSettings(), Console(soft_wrap=False, width=160)
    try:
        _fresh(settings, console)
        write_atomic(settings.home / MARK, json.dumps({"ok": False}))
        ok = Demo(settings, console).play()
    except (PlayStopped, StackError) as problem:
        console.print(str(problem))
        raise typer.Exit(1) from None
    if os.environ.get("DEMO_KEEP") == "0":
        Stack(settings, console).down()
    else:
        console.print(
            f"Look around: {settings.airflow_url} ({settings.user} / {settings.password}). `make down` stops it."
        )
    if not ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
