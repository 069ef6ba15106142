"""`deploy` from its question on, without slots: what the rollout would say comes with the run. For tests/e2e alone."""

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, task

from evergreen.operators.approval import ApproveReleaseOperator
from evergreen.operators.reconcile import ReconcileOperator
from include.manifest import read_manifest


@task
def try_out(**context: Any) -> Any:
    return context["params"]["told"]


@task(trigger_rule=TriggerRule.NONE_FAILED)
def rollout(**context: Any) -> str:
    return "it looks again"


RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=5)}

with DAG("release_approvals", schedule=None, params={"told": Param({}, type="object")}, default_args=RETRIES):
    told = try_out()
    ReconcileOperator(task_id="reconcile") >> told
    ApproveReleaseOperator(task_id="approve", manifest=read_manifest(), result=told) >> rollout()
