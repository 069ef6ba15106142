"""One job, two runtimes: `job_task` picks the operator by the manifest's target.

The import is lazy on purpose: with the local target no DAG file loads the Kubernetes client, which would double the
time every DAG takes to parse.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from include import factory
from include.kernel import work_units


def job_task(task_id: str, job: str, **options: Any) -> BaseOperator:
    """A task that runs `job`. `params_from` names DAG Params handed on as they are; `job_params` are templated."""
    return _runtime()(task_id=task_id, job=job, **_bounded(job, options))


def mapped_job(task_id: str, job: str, shards: int, job_params: dict[str, Any] | None = None, **options: Any) -> Any:
    """`shards` tasks at once that run `job`, each told which shard it is beside `job_params`.

    They make pieces for the job behind them (include.kernel.work_units), which makes what they did not get to: give
    that one `trigger_rule="all_done"`.
    """
    each = [{**(job_params or {}), **shard.params} for shard in work_units.shards(shards)]
    named = {"map_index_template": "{{ task.job_params.shard + 1 }} of {{ task.job_params.shards }}"}
    return _runtime().partial(task_id=task_id, job=job, **named, **_bounded(job, options)).expand(job_params=each)


def _bounded(job: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"execution_timeout": timedelta(minutes=factory.manifest().jobs.minutes_of(job)), **options}


def _runtime() -> type[BaseOperator]:
    """The operator of the manifest's target."""
    if factory.manifest().target == "kubernetes":
        from evergreen.operators.job_pod import PodJobOperator

        return PodJobOperator
    from evergreen.operators.job_local import LocalJobOperator

    return LocalJobOperator
