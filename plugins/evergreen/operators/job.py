"""One job, two runtimes: `make_job_task` picks the operator by the manifest's target.

The import is lazy on purpose: with the local target no DAG file loads the Kubernetes client, which would double the
time every DAG takes to parse.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator

from include.kernel import work_units
from include.manifest import Manifest


def make_job_task(manifest: Manifest, task_id: str, job: str, **options: Any) -> BaseOperator:
    """A task that runs `job`. `params_from` names DAG Params handed on as they are; `job_params` are templated."""
    runtime, settings = _find_runtime(manifest, job)
    return runtime(task_id=task_id, job=job, **{**settings, **options})


def make_mapped_job(
    manifest: Manifest, task_id: str, job: str, shards: int, job_params: dict[str, Any] | None = None, **options: Any
) -> Any:
    """`shards` tasks at once that run `job`, each told which shard it is beside `job_params`.

    They make work units for the job behind them (include.kernel.work_units), which makes what they did not get to: give
    that one `trigger_rule="all_done"`.
    """
    shard_params = [{**(job_params or {}), **shard.params} for shard in work_units.list_shards(shards)]
    map_options = {"map_index_template": "{{ task.job_params.shard + 1 }} of {{ task.job_params.shards }}"}
    runtime, settings = _find_runtime(manifest, job)
    return runtime.partial(task_id=task_id, job=job, **{**settings, **map_options, **options}).expand(
        job_params=shard_params
    )


def _find_runtime(manifest: Manifest, job: str) -> tuple[type[BaseOperator], dict[str, Any]]:
    """The operator of the manifest's target, and what the manifest says of this job."""
    bounds = {"execution_timeout": timedelta(minutes=manifest.jobs.find_timeout_minutes(job))}
    if manifest.target == "kubernetes":
        from evergreen.operators.job_pod import PodJobOperator, describe_pod

        return PodJobOperator, {**describe_pod(job, manifest), **bounds}
    from evergreen.operators.job_local import LocalJobOperator

    return LocalJobOperator, bounds
