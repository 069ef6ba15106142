"""`make demo`: plays the whole loop in the running Airflow, through its REST API, and checks every step.

Nothing here reaches around the product: days are ingested, models trained and releases made by the seven DAGs, so that
everything can be looked at in the UI afterwards. Two things are staged, openly: later days come from another market
(scenario `new_market`), and one release is built wrong on purpose.
"""

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
from include.embedded.commands.traffic import Traffic, read_rows
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
MARK_FILE = "demo.json"
DAGS = ("ingest", "monitor", "watch", "retrain", "train", "deploy", "rollback")


@dataclass
class StepResult:
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
        self.results: list[StepResult] = []
        source = self.manifest.source
        if not isinstance(source, ReplaySource):
            raise PlayStopped(f"The demo plays the replay source, not {source.kind}; unset EVERGREEN_MANIFEST.")
        self.first_day = source.first_day
        rows = read_rows(ROOT / source.path, self.manifest)
        self.traffic = Traffic(settings.serving_url, rows, REQUESTS_PER_SECOND)

    def play(self) -> bool:
        began = time.monotonic()
        steps: tuple[tuple[str, Callable[[StepResult], None]], ...] = (
            ("stack up", self._start_stack),
            ("backfill history", self._backfill),
            ("first model live", self._deploy_first_model),
            ("drifted days arrive", self._add_drifted_days),
            ("drift detected", self._wait_for_drift),
            ("challenger wins the gate", self._train_challenger),
            ("blue-green switch", self._check_switch),
            ("bad candidate refused", self._train_bad_candidate),
            ("bad release kept from traffic", self._deploy_bad_release),
            ("rollback", self._roll_back),
            ("traffic", self._check_traffic),
        )
        ok = all(self._run_step(name, act) for name, act in steps)  # the first step that fails ends the play
        self.traffic.stop()
        self._write_report(ok, time.monotonic() - began)
        return ok

    def _run_step(self, name: str, play_step: Callable[[StepResult], None]) -> bool:
        result, began = StepResult(name), time.monotonic()
        self.results.append(result)
        self.console.rule(f"[bold]{name}", align="left")
        try:
            play_step(result)
            result.ok = True
        except PlayStopped as stopped:
            result.happened = f"FAILED: {stopped}"
        except Exception as error:  # the table is shown whatever happens
            self.console.print_exception()
            result.happened = f"FAILED: {type(error).__name__}: {error}"
        result.seconds = round(time.monotonic() - began, 1)
        self.console.print(f"{result.happened} [dim]({result.seconds:g} s)[/]")
        return result.ok

    # --- the steps ------------------------------------------------------------------------------------------------

    def _start_stack(self, result: StepResult) -> None:
        stack = Stack(self.settings, self.console)
        stack.start()
        os.environ.update(stack.build_env())
        self.api = AirflowApi(self.settings.airflow_url, self.settings.user, self.settings.password)
        wait_for("all DAGs in Airflow", lambda: True if set(DAGS) <= self.api.list_dag_ids() else None, 60)
        _require(not self.api.list_import_errors(), f"import errors: {self.api.list_import_errors()}")
        for dag in DAGS:
            self.api.unpause(dag)
        for dag in ("ingest", "monitor", "retrain"):  # each has a schedule, and finds that there is nothing to do yet
            self.api.wait_for_next_run(dag, set(), 120)
        result.happened, result.link = (
            "healthy; seven DAGs on, the scheduled ones ran and found no data yet",
            self.api.base,
        )

    def _backfill(self, result: StepResult) -> None:
        first, last = self._compute_day(0), self._compute_day(HISTORY_DAYS - 1)
        known = self.api.list_asset_events("dataset.validated")
        number = self.api.backfill("ingest", str(first), str(last), active=4)
        self._wait_with_progress("days", HISTORY_DAYS, lambda: len(open_snapshot_store().list_snapshots()), 600)
        ended = wait_for("the backfill's end", lambda: self.api.get(f"/backfills/{number}")["completed_at"], 120)
        days = [snapshot.day for snapshot in open_snapshot_store().list_snapshots()]
        _require(days == [self._compute_day(n) for n in range(HISTORY_DAYS)], f"ingested days are {days}")
        _require(self.api.list_asset_events("dataset.validated") == known, "a backfill raised a live event")
        rows = sum(snapshot.rows for snapshot in open_snapshot_store().list_snapshots())
        result.numbers = {"days": len(days), "rows": rows, "completed_at": ended}
        result.happened = f"{len(days)} days, {rows} real rows, {first} to {last}; no live event"
        result.link = self.api.build_page_url("ingest")

    def _deploy_first_model(self, result: StepResult) -> None:
        trained, deployed = self.api.list_run_ids("train"), self.api.list_run_ids("deploy")
        self._require_success("retrain", self.api.start_run("retrain"), 120)
        gate = self._read_gate_report(self.api.wait_for_next_run("train", trained, 240))
        release = self._read_release(self.api.wait_for_next_run("deploy", deployed, 240))
        _require(release["version"] == "1" and release["outcome"] == "done", f"release: {release}")
        self._wait_until_served("1")
        self.traffic.start()
        result.numbers = {"version": "1", "gate": _summarize_gate(gate), "steps": release["steps"]}
        result.happened = f"version 1 live; {gate['sentence']}; steady traffic starts"
        result.link = self.api.build_page_url("deploy")

    def _add_drifted_days(self, result: StepResult) -> None:
        self.known_runs = {dag: self.api.list_run_ids(dag) for dag in ("train", "deploy", "retrain")}
        days = [self._compute_day(HISTORY_DAYS + n) for n in range(DRIFTED_DAYS)]
        runs = [
            self.api.start_run("ingest", day=str(day), as_of=str(day + timedelta(days=1)), scenario="new_market")
            for day in days  # known when they ended, not today: the play runs in the data's time
        ]
        self._wait_with_progress(
            "days", DRIFTED_DAYS, lambda: len(open_snapshot_store().list_snapshots()) - HISTORY_DAYS, 300
        )
        for run in runs:
            self._require_success("ingest", run, 60)
        rows = sum(s.rows for s in open_snapshot_store().list_snapshots() if s.day in days)
        result.numbers = {"days": len(days), "rows": rows}
        result.happened = f"{len(days)} days, {rows} rows from another market, {days[0]} to {days[-1]}"
        result.link = self.api.build_page_url("ingest")

    def _wait_for_drift(self, result: StepResult) -> None:
        what = kinds.DRIFT_DETECTED
        event = wait_for(what, lambda: next(iter(self.api.list_asset_events(what)), None), 180)
        moved = event["extra"]["moved"]
        report = open_report_store().read_reports()[-1]
        result.numbers = {"moved": moved, "auc_now": report.auc, "auc_low": report.auc_low, "auc_high": report.auc_high}
        features = ", ".join(f"{name} {psi:.2f}" for name, psi in sorted(moved.items(), key=lambda item: -item[1])[:4])
        result.numbers["alert"] = alert = self._find_alert(event["extra"]["key"])
        result.happened = f"PSI of {features}; announced once as {event['extra']['key']}; people are told: {alert}"
        result.link = self.api.build_page_url("watch")

    def _find_alert(self, episode: str) -> str:
        """The alert's title and what it links to, as it was written down for the channels."""
        entry = next(entry for entry in open_ledger().read_entries(kinds.DRIFT_DETECTED) if entry.key == episode)
        alert = alert_rules.build_alert(entry)
        if alert is None:
            raise PlayStopped(f"nobody is told of {episode}")
        written = (Path(read_setting("EVERGREEN_STORE")) / "alerts").rglob("*.json")
        _require(
            any(alert.title in path.read_text() for path in written), f"the alert of {episode} is not written down"
        )
        return f"{alert.title}, see {alert.link(self.manifest.alerts.runbook)}"

    def _train_challenger(self, result: StepResult) -> None:
        retrained = self.api.wait_for_next_run("retrain", self.known_runs["retrain"], 240)
        why = self.api.read_result("retrain", retrained["dag_run_id"], "decide")["sentence"]
        gate = self._read_gate_report(self.api.wait_for_next_run("train", self.known_runs["train"], 240))
        _require(gate["verdict"] == "passed" and gate["champion_version"] == "1", f"gate: {gate['sentence']}")
        result.numbers = {"why": why, "gate": _summarize_gate(gate), "metrics": gate["metrics"]}
        result.happened = f"{why} {gate['sentence']}"
        result.link = self.api.build_page_url("train")

    def _check_switch(self, result: StepResult) -> None:
        release = self._read_release(self.api.wait_for_next_run("deploy", self.known_runs["deploy"], 240))
        _require(release["version"] == "2" and release["outcome"] == "done", f"release: {release}")
        self._wait_until_served("2")
        failed = self.traffic.failures.total()
        _require(failed == 0, f"{failed} requests failed: {dict(self.traffic.failures)}")
        result.numbers = {"version": "2", "steps": release["steps"], "requests_so_far": self.traffic.total}
        seconds = dict(release["steps"])
        result.happened = f"version 2 live, switched in {seconds['switch']:.2f} s under traffic, version 1 on standby"
        result.link = self.api.build_page_url("deploy")

    def _train_bad_candidate(self, result: StepResult) -> None:
        day = str(open_snapshot_store().find_newest_day())
        run = self.api.start_run("train", as_of=day, columns=["Time"], reason="a candidate that knows one column")
        gate = self._read_gate_report(self.api.wait_for_end("train", run, 240))
        states = self.api.read_task_states("train", run)
        _require(gate["verdict"] != "passed" and states["bless"] == "skipped", f"gate: {gate['sentence']}, {states}")
        _require(self._find_champion() == "2", "the champion changed")
        result.numbers, result.happened = {"gate": _summarize_gate(gate)}, gate["sentence"]
        result.link = self.api.build_page_url("train", run)

    def _deploy_bad_release(self, result: StepResult) -> None:
        version = build_bad_release(open_registry(self.manifest.name), template_version="2", key=self._read_key())
        run = self.api.start_run("deploy", version=version, why="the demo tries a release built for another form")
        release = self._read_release(self.api.wait_for_end("deploy", run, 240))
        _require(release["outcome"] == "rejected", f"release: {release}")
        _require(version not in self.traffic.versions, f"version {version} answered live traffic")
        self._wait_until_served("2")
        result.numbers = {"version": version, "evidence": release["evidence"]}
        result.happened = f"version {version} never got traffic; {release['evidence']['accepted']['why']}"
        result.link = self.api.build_page_url("deploy", run)

    def _roll_back(self, result: StepResult) -> None:
        began = time.monotonic()
        run = self.api.start_run("rollback", why="the demo goes back")
        self._wait_until_served("1", 60)
        answered = time.monotonic() - began
        release = self._read_release(self.api.wait_for_end("rollback", run, 120), "rollback")
        _require(release["version"] == "1" and self._find_champion() == "1", f"release: {release}")
        result.numbers = {"seconds_to_first_answer": round(answered, 2), "steps": release["steps"]}
        result.happened = f"version 1 answers {answered:.1f} s after the form was sent; the alias followed"
        result.link = self.api.build_page_url("rollback", run)

    def _check_traffic(self, result: StepResult) -> None:
        self._wait_with_progress("requests", MIN_REQUESTS, lambda: self.traffic.total, 240)
        self.traffic.stop()
        versions, failed = dict(self.traffic.versions), self.traffic.failures.total()
        result.numbers = {"total": self.traffic.total, "failed": failed, "by_version": versions}
        result.happened = f"{self.traffic.total} requests, {failed} failed; answered by version {versions}"
        _require(failed == 0, f"{failed} of {self.traffic.total} requests failed: {dict(self.traffic.failures)}")
        result.link = self.settings.serving_url + "/model"

    def _find_champion(self) -> str | None:
        return open_registry(self.manifest.name).find_champion()

    def _read_key(self) -> Ed25519PrivateKey:
        return blessings.parse_private_key(self.settings.signing_key.read_text())

    # --- what the steps share -------------------------------------------------------------------------------------

    def _compute_day(self, number: int) -> date:
        return self.first_day + timedelta(days=number)

    def _require_success(self, dag: str, run_id: str, seconds: float) -> None:
        state = self.api.wait_for_end(dag, run_id, seconds)["state"]
        _require(state == "success", f"{dag} {run_id} ended {state}: {self.api.build_page_url(dag, run_id)}")

    def _read_gate_report(self, run: dict[str, Any]) -> dict[str, Any]:
        _require(
            run["state"] == "success",
            f"train ended {run['state']}: {self.api.build_page_url('train', run['dag_run_id'])}",
        )
        gate: dict[str, Any] = self.api.read_result("train", run["dag_run_id"], "evaluate")["outputs"]["gate"]
        for check in gate["checks"]:
            mark = "" if check["blocks"] else "(warns)"
            self.console.print(f"  {check['verdict']:<13}{mark:<8}{check['name']:<25}{check['reason']}")
        return gate

    def _read_release(self, run: dict[str, Any], dag: str = "deploy") -> dict[str, Any]:
        _require(
            run["state"] == "success", f"{dag} ended {run['state']}: {self.api.build_page_url(dag, run['dag_run_id'])}"
        )
        release: dict[str, Any] = self.api.read_result(dag, run["dag_run_id"], "rollout")["outputs"]
        self.console.print("  " + "  ".join(f"{step} {seconds:.2f}s" for step, seconds in release["steps"]))
        return release

    def _wait_until_served(self, version: str, seconds: float = 15) -> None:
        def poll() -> bool | None:
            answer = httpx.get(f"{self.settings.serving_url}/model", timeout=10)
            return True if answer.headers.get(headers.VERSION) == version else None

        wait_for(f"version {version} behind the proxy", poll, seconds, interval=0.05)

    def _wait_with_progress(self, what: str, goal: int, count: Callable[[], int], seconds: float) -> None:
        """Waits for `goal` and says how far it is, at least every five seconds."""
        last_line_at = 0.0

        def poll() -> bool | None:
            nonlocal last_line_at
            done = count()
            if time.monotonic() - last_line_at > 5:
                last_line_at = time.monotonic()
                self.console.print(f"  {done} of {goal} {what}")
            return True if done >= goal else None

        wait_for(f"{goal} {what}", poll, seconds)

    def _write_report(self, ok: bool, seconds: float) -> None:
        table = Table(title="Evergreen's loop, as it just happened", show_lines=True)
        for heading in ("Step", "What happened", "Seconds", "Look"):
            table.add_column(heading, overflow="fold")
        for result in self.results:
            table.add_row(
                ("✓ " if result.ok else "✗ ") + result.step, result.happened, f"{result.seconds:g}", result.link
            )
        picture = Console(record=True, width=150)
        picture.print(table)
        picture.save_svg(str(self.settings.home / "demo.svg"), title="make demo")
        document = {
            "ok": ok,
            "wall_seconds": round(seconds, 1),
            "requests_total": self.traffic.total,
            "requests_failed": self.traffic.failures.total(),
            "steps": [asdict(result) for result in self.results],
        }
        write_atomic(self.settings.home / MARK_FILE, json.dumps(document, indent=1))
        self.console.print_json(json.dumps({name: document[name] for name in list(document)[:4]}))


def build_bad_release(registry: MlflowRegistry, template_version: str, key: Ed25519PrivateKey) -> str:
    """Registers a blessed version that agrees with itself and not with the world: it asks for a column nobody sends.

    A mix-up of two builds looks like this, and a signature cannot see it. Returns its version.
    """
    from include.model import artifact
    from include.model.schema import Column

    trusted = {blessings.compute_key_id(key.public_key()): key.public_key()}
    blessing = blessings.verify(registry.fetch_blessing(template_version), trusted, registry.name, template_version)
    with tempfile.TemporaryDirectory() as scratch:
        directory = registry.fetch(template_version, Path(scratch))
        meta = artifact.read_meta(directory)
        golden = tuple(item.model_copy(update={"row": {**item.row, "Salary": 1.0}}) for item in meta.golden)
        columns = (*meta.columns, Column(name="Salary", kind="number", nullable=False))
        digest = artifact.write_meta(meta.model_copy(update={"columns": columns, "golden": golden}), directory)
        with registry.open_client() as client:
            run_id = client.create_run(client.get_experiment_by_name(registry.name).experiment_id).info.run_id
            client.log_artifacts(run_id, str(directory), "serving")
            client.set_terminated(run_id)
    version = registry.register(run_id, f"runs:/{run_id}/serving", f"demo-{run_id}")
    changed = {"version": version, "digest": digest, "run_id": run_id, "gate": "a mix-up of the demo"}
    registry.bless(version, blessings.sign(blessing.model_copy(update=changed), key))
    return version


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise PlayStopped(problem)


def _summarize_gate(gate: dict[str, Any]) -> dict[str, Any]:
    """The checks with their intervals, without prose."""
    checks = {c["name"]: [round(c[part], 4) for part in ("value", "low", "high")] for c in gate["checks"]}
    return {"verdict": gate["verdict"], "rows": gate["rows"], **checks}


def _require_empty_home(settings: EmbeddedSettings, console: Console) -> None:
    """A play needs an empty stage. An earlier play is cleared away; anything else is somebody's and is left alone."""
    stack = Stack(settings, console)
    if (settings.home / MARK_FILE).exists():
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
        _require_empty_home(settings, console)
        write_atomic(settings.home / MARK_FILE, json.dumps({"ok": False}))
        ok = Demo(settings, console).play()
    except (PlayStopped, StackError) as problem:
        console.print(str(problem))
        raise typer.Exit(1) from None
    if os.environ.get("DEMO_KEEP") == "0":
        Stack(settings, console).stop()
    else:
        console.print(
            f"Look around: {settings.airflow_url} ({settings.user} / {settings.password}). `make down` stops it."
        )
    if not ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
