"""Buttons on a task: its MLflow run or model version, the version's model card, and the page of what a job found.

The task sets `mlflow_url`, `card_url` or `report_url` on itself while it runs; Airflow asks when the task has ended,
and keeps the link.
"""

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


class ReportLink(BaseOperatorLink):
    @property
    def name(self) -> str:
        return "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return str(getattr(operator, "report_url", ""))
