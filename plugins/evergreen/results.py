"""The result of an earlier task, which Airflow does not promise: a task that was marked success by hand left none."""

from typing import Any

from airflow.sdk.exceptions import AirflowFailException


def require_result(result: Any, *fields: str, task_id: str = "before") -> dict[str, Any]:
    """`result`, if it is one and has these fields; else the task fails in one sentence, at once."""
    if isinstance(result, dict) and all(field in result for field in fields):
        return result
    raise AirflowFailException(
        f"The task {task_id} left no result to go on with, as when it was marked success by hand; clear it so that it "
        "runs, or trigger a new run."
    )


def read_output(ti: Any, task_id: str, name: str) -> Any:
    """One output of the job that ran as `task_id`; for templates."""
    result = require_result(ti.xcom_pull(task_ids=task_id), "outputs", task_id=task_id)
    return require_result(result["outputs"], name, task_id=task_id)[name]
