"""The tasks of the DAGs deploy and rollback, run by their real operators in a process of their own.

A task here is a process as Airflow's are: it has read no state but what is stored, and SIGKILL ends it between any two
instructions. What goes from task to task (XCom in Airflow) lies in files of a run's directory. Where a task defers, its
trigger is asked here, in the same process, and the task goes on as Airflow's worker would.

Importing Airflow and MLflow takes longer than a release. So Python's fork server imports them once and forks each task.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from tests.proofs.release_mutants import switch_off
from tests.proofs.release_points import Effects, Point

Dag = Literal["deploy", "rollback"]
TASKS = ("want", "rollout", "go_live")
WITHOUT = "PROOF_WITHOUT"  # names the guard that a task is run without
SKIPPED = 99  # Airflow's own code for a task that skips itself


@dataclass(frozen=True)
class Run:
    """One run of a DAG. `place` is its directory, `told` its environment."""

    dag: Dag
    params: Mapping[str, str]
    place: Path
    told: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.place.name

    def result(self, task: str) -> dict[str, Any] | None:
        path = self.place / f"{task}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def effects(self, task: str) -> Path:
        """Where the effects of a task are noted."""
        return self.place / f"effects-{task}"

    @property
    def outcome(self) -> str:
        """How the rollout ended: done, rejected, reverted, superseded; empty when it has not."""
        found = self.result("rollout")
        return str(found["outputs"]["outcome"]) if found else ""

    def stopped(self) -> int:
        """The process id of a task that SIGSTOP holds up; 0 while it runs, or has not begun."""
        pid = int((self.place / "pid").read_text())
        try:
            return pid if psutil.Process(pid).status() == psutil.STATUS_STOPPED else 0
        except psutil.NoSuchProcess:  # that was the task before
            return 0

    def output(self) -> str:
        path = self.place / "output"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""


def server() -> Any:
    """The fork server; `PYTHONPATH` and `AIRFLOW_HOME` must be set before its first process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.proofs.release_dag_imports"])
    return context


def work(run: Run, task: str, fatal: Point | None = None) -> None:
    """The body of a task's process, which does not survive the effect `fatal`."""
    os.environ.update(run.told)
    (run.place / "pid").write_text(str(os.getpid()))
    handle = os.open(run.place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if without := run.told.get(WITHOUT):
        switch_off(without)
    sys.addaudithook(Effects(run.effects(task), fatal))
    code = 1
    try:
        code = _done(run, task)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _done(run: Run, task: str) -> int:
    from airflow.sdk.bases.operator import ExecutorSafeguard
    from airflow.sdk.exceptions import AirflowSkipException

    from tests.plugins.conftest import context

    ExecutorSafeguard.test_mode = True  # there is no task runner around it
    told = context(params=run.params, dag_id=run.dag, run_id=run.name)
    try:
        result = _executed(_operator(run, task), told)
    except AirflowSkipException:
        return SKIPPED
    (run.place / f"{task}.json").write_text(json.dumps(result))
    return 0


def _operator(run: Run, task: str) -> Any:
    from evergreen.operators.registry import PromoteOperator
    from evergreen.operators.rollout import RequestReleaseOperator, RequestRollbackOperator, RolloutOperator

    if task == "want":
        return (RequestReleaseOperator if run.dag == "deploy" else RequestRollbackOperator)(task_id="want")
    if task == "rollout":
        return RolloutOperator(task_id="rollout", release_request=run.result("want"))
    return PromoteOperator(task_id="go_live", result=run.result("rollout"))


def _executed(operator: Any, told: dict[str, Any]) -> Any:
    from airflow.sdk.exceptions import TaskDeferred

    method, more = operator.execute, {}
    while True:
        try:
            return method(told, **more)
        except TaskDeferred as deferred:
            event = asyncio.run(_fired(deferred.trigger))
            method, more = getattr(operator, deferred.method_name), {"event": event, **(deferred.kwargs or {})}


async def _fired(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise RuntimeError("the trigger ended without an event")
