"""The three tasks of the train DAG that have effects, as Airflow runs them: two jobs, and the operator that blesses."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

from airflow.sdk.bases.operator import ExecutorSafeguard

from evergreen.operators.registry import BlessOperator
from include.jobs.__main__ import main
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, Intent, JobRequest, build_run_key
from tests.plugins.conftest import context

RUN = {"dag_id": "train", "run_id": "a training"}


def run(task: str) -> int:
    """The exit code of one task. Results lie where XCom would hold them, below PROOF_SCRATCH."""
    scratch = Path(os.environ["PROOF_SCRATCH"])
    if task == "bless":
        return _bless(scratch)
    params = {"run_id": _result(scratch, "train")["outputs"]["run_id"]} if task == "evaluate" else {}
    as_of = date.fromisoformat(os.environ["PROOF_AS_OF"])
    request = JobRequest(job=task, run_key=build_run_key(*RUN.values()), as_of=as_of, intent=Intent.LIVE, params=params)
    os.environ |= {REQUEST_VARIABLE: request.model_dump_json(), RESULT_VARIABLE: str(scratch / f"{task}.json")}
    return main()


def _bless(scratch: Path) -> int:
    ExecutorSafeguard.test_mode = True  # there is no task runner around it
    told = context(params={"as_of": os.environ["PROOF_AS_OF"]}, **RUN)
    BlessOperator(task_id="bless", result=_result(scratch, "evaluate")).execute(told)
    return 0


def _result(scratch: Path, task: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((scratch / f"{task}.json").read_text())
    return found
