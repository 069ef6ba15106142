"""What a scheduler's worker does with a drift event: the two tasks of the retrain DAG, run again until they are done.

A decider is a process of its own. It writes down each run that ended, and
what it emitted, in one line, as Airflow's database does in one transaction; a decider that takes the place of a killed
one goes on with the first run that has no such line.

Traps lie where a kill hurts most: before, in the middle of and behind each entry of the ledger, and before the end is
written down. A trap is a file; whoever takes it away dies there, so each kills once, whichever process comes by.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from evergreen.assets import DRIFT_DETECTED, MONITOR_REPORTED, TRAINING_REQUESTED
from evergreen.operators.announce import AnnounceOperator
from evergreen.sensors.drift import DriftSensor
from evergreen.sensors.retraining import RetrainingSensor
from include.kernel.files import write_atomic
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger
from include.retraining.wait_conditions import WaitConditions
from tests.plugins.conftest import context, event

TRAPPED = {"retraining.approved": "approved", "training.requested": "requested", "drift.detected": "detected"}
PLACES = ("before", "half", "behind")
Outcome = tuple[str, str]  # yes, no or wait, and why


@dataclass(frozen=True)
class Share:
    """The runs of one decider: `events` are (run id, key of the episode, day of the drift), `settings` EVERGREEN_*."""

    events: tuple[tuple[str, str, str], ...]
    done: Path
    traps: Path
    settings: Mapping[str, str]
    task: str = "retrain"


def retrain(run_id: str, key: str, day: str, kept: Path, trigger: str = "drift") -> Outcome:
    """One run of the retrain DAG, up to the request for a training; `kept` is the place of its first task's XCom."""
    sent = event(as_of=day, key=key, intent="live")
    by_drift = {"asset": DRIFT_DETECTED, "run_type": "asset_triggered"}
    run = {"dag_id": "retrain", "run_id": run_id}
    if trigger == "drift":
        told = context(sent, **by_drift, **run)
    else:
        told = context(params={"as_of": day}, run_type="scheduled", **run)
    return _tasks(
        told,
        kept,
        lambda: RetrainingSensor(task_id="decide").execute(told),
        lambda answer: AnnounceOperator(
            task_id="request", asset=TRAINING_REQUESTED, result=answer, fields=["as_of", "sentence"], once="key"
        ),
    )


def watch(run_id: str, key: str, day: str, kept: Path) -> Outcome:
    """One run of the watch DAG; the episode is what the reports say, so `key` and `day` only tell runs apart."""
    sent = event(as_of=day, intent="live")
    told = context(sent, asset=MONITOR_REPORTED, run_type="asset_triggered", dag_id="watch", run_id=run_id)
    return _tasks(
        told,
        kept,
        lambda: DriftSensor(task_id="drift").execute(told),
        lambda answer: AnnounceOperator(
            task_id="announce", asset=DRIFT_DETECTED, result=answer, fields=["key", "as_of"], once="key"
        ),
    )


def _tasks(told: Any, kept: Path, ask: Callable[[], Any], announce: Callable[[Any], AnnounceOperator]) -> Outcome:
    """Two tasks: what the first one returned is kept, as XCom keeps it, and is not asked for again."""
    try:
        if not kept.exists():
            write_atomic(kept, json.dumps(ask()))
        answer = json.loads(kept.read_text())
        announce(answer).execute(told)
    except AirflowSkipException as skipped:
        return "no", str(skipped)
    except TaskDeferred:
        return "wait", "deferred to the triggerer"
    return "yes", answer["sentence"]


TASKS: dict[str, Callable[..., Outcome]] = {"retrain": retrain, "watch": watch}


def work(share: Share, barrier: Any = None, sabotaged: bool = False) -> None:
    """Works the share off. With `barrier`, all deciders look before any of them enters what it decided."""
    _quiet()
    os.environ |= share.settings
    ExecutorSafeguard.test_mode = True  # there is no task runner around it
    if barrier is not None:
        _look_together(barrier)
    LocalLedger._write = _trapped(LocalLedger._write, share.traps)  # type: ignore[method-assign]
    if sabotaged:
        LocalLedger._has_entry = lambda *_: False  # type: ignore[method-assign]
    done = {json.loads(line)["run"] for line in share.done.read_text().splitlines()} if share.done.exists() else set()
    for run_id, key, day in share.events:
        if run_id not in done:
            outcome, why = TASKS[share.task](run_id, key, day, share.done.parent / "xcom" / run_id)
            if outcome == "yes":
                _spring(share.traps / "end.before")
            _note(share.done, {"run": run_id, "outcome": outcome, "why": why})


def _look_together(barrier: Any) -> None:
    """The worst moment on purpose: the first decision of everybody is taken before the first one is entered."""
    look, first = WaitConditions.decide_retraining, [True]

    def together(conditions: WaitConditions, **arguments: Any) -> Any:
        answer = look(conditions, **arguments)
        if first.pop() if first else False:
            barrier.wait(120)
        return answer

    WaitConditions.decide_retraining = together  # type: ignore[method-assign]


def _trapped(write: Callable[..., None], traps: Path) -> Callable[..., None]:
    def trapped(book: LocalLedger, entry: Entry) -> None:
        name = TRAPPED.get(entry.what)
        if name is None:
            return write(book, entry)
        _spring(traps / f"{name}.before")
        if _taken(traps / f"{name}.half"):
            with open(book._path, "ab") as file:
                file.write(entry.model_dump_json().encode()[:60])
            os.kill(os.getpid(), signal.SIGKILL)
        write(book, entry)
        _spring(traps / f"{name}.behind")

    return trapped


def _spring(trap: Path) -> None:
    if _taken(trap):
        os.kill(os.getpid(), signal.SIGKILL)


def _taken(trap: Path) -> bool:
    try:
        trap.unlink()
    except FileNotFoundError:
        return False
    return True


def _note(path: Path, line: dict[str, str]) -> None:
    with open(path, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")


def _quiet() -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
