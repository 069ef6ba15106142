"""Twelve tasks in a row that do nothing: what is left is what orchestration costs."""

from datetime import datetime

from airflow.sdk import DAG, chain, task

with DAG("chain", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:

    @task
    def nothing() -> None:
        """A real task, unlike EmptyOperator, which the scheduler passes over without a worker."""

    chain(*(nothing.override(task_id=f"step_{number:02}")() for number in range(12)))
