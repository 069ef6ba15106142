"""Buttons on a task that lead to its MLflow run or model version, and to the version's model card.

The task sets `mlflow_url` or `card_url` on itself while it runs; Airflow asks for the link when the task has ended,
and keeps it.
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


class CardLink(BaseOperatorLink):
    @property
    def name(self) -> str:
        return "Model card"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return str(getattr(operator, "card_url", ""))
