"""The second half of `train` without its jobs: what evaluate would say comes with the run. For tests/e2e alone."""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from evergreen.operators.approval import ApproveOperator
from evergreen.operators.gate import GateOperator
from evergreen.operators.registry import BlessOperator
from include.manifest import read_manifest


@task
def evaluate(**context: Any) -> Any:
    return context["params"]["told"]


RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=5)}  # Airflow may lose a task that is answered at once

with DAG("approvals", schedule=None, params={"told": Param({}, type="object")}, default_args=RETRIES):
    told = evaluate()
    gate = GateOperator(task_id="gate", result=told)
    approve = ApproveOperator(task_id="approve", manifest=read_manifest(), result=told, url="http://mlflow.example/run")
    bless = BlessOperator(
        task_id="bless", result=told, approval=approve.output, trigger_rule="none_failed_min_one_success"
    )
    gate >> [approve, bless]
