"""The DAGs deploy and rollback as they are, in a hurry to retry, and with tasks that can be killed from outside.

Airflow loads this file in the process of each task, before the task begins. That is where the audit hook goes in that
kills the task, or the worker above it, at the point that the proof has written down (see release_airflow).
"""

from __future__ import annotations

import importlib.util
from datetime import timedelta

from airflow.sdk import DAG

from include.embedded.configuration.settings import REPO
from tests.proofs.release_points import arm


def hasty(name: str) -> DAG:
    spec = importlib.util.spec_from_file_location(f"release_{name}", REPO / "dags" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for task in module.dag.tasks:
        task.retry_delay, task.retry_exponential_backoff = timedelta(seconds=1), False
    return module.dag  # type: ignore[no-any-return]


deploy = hasty("deploy")
rollback = hasty("rollback")
arm()
