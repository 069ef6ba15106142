"""One job, two runtimes: `job_task` picks the operator by the manifest's target.

The import is lazy on purpose: with the local target no DAG file loads the Kubernetes client, which would double the
time every DAG takes to parse.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from include.adapters import factory


def job_task(task_id: str, job: str, **options: Any) -> BaseOperator:
    """A task that runs `job`. `params_from` names DAG Params handed on as they are; `job_params` are templated."""
    manifest = factory.manifest()
    options.setdefault("execution_timeout", timedelta(minutes=manifest.jobs.minutes_of(job)))
    if manifest.target == "kubernetes":
        from evergreen.operators.job_pod import PodJobOperator

        return PodJobOperator(task_id=task_id, job=job, **options)
    from evergreen.operators.job_local import LocalJobOperator

    return LocalJobOperator(task_id=task_id, job=job, **options)
