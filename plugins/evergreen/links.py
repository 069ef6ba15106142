"""A button on a task that leads to its MLflow run or model version.

The task sets `mlflow_url` on itself while it runs; Airflow asks for the link when the task has ended, and keeps it.
"""

from __future__ import annotations

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey


class MlflowLink(BaseOperatorLink):
    @property
    def name(self) -> str:
        return "MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return str(getattr(operator, "mlflow_url", ""))
