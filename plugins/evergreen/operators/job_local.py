"""Runs a job as a process of its own: the same command a pod would run, so heavy imports never touch the worker."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException

from evergreen.errors import JobRefused, translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.links import MlflowLink, ReportLink
from evergreen.pages import build_page_url, find_page
from evergreen.run_context import build_job_request
from include.kernel.environment import ROOT
from include.kernel.errors import Permanent
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, JobRequest, JobResult


class LocalJobOperator(BaseOperator):
    """Returns the job's result as a dictionary. Exit 65 fails at once, anything else but 0 is retried."""

    template_fields: Sequence[str] = ("job_params",)
    operator_extra_links = (MlflowLink(), ReportLink())
    ui_color = "#dcefe3"

    def __init__(
        self, *, job: str, job_params: dict[str, Any] | None = None, params_from: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.job = job
        self.job_params = job_params or {}
        self.params_from = tuple(params_from)
        self._process = SubprocessHook()

    def execute(self, context: Context) -> dict[str, Any]:
        handed_on = {name: context["params"].get(name) for name in self.params_from}
        result = self._run(build_job_request(context, self.job, {**self.job_params, **handed_on}))
        if "url" in result.outputs:
            self.mlflow_url = result.outputs["url"]
        self._link(result.outputs)
        self.log.info("%s", result.summary)
        return result.model_dump(mode="json")

    def _link(self, outputs: dict[str, Any]) -> None:
        if page := find_page(outputs):
            self.report_url = build_page_url(page)
            self.log.info("report: %s", self.report_url)

    def _run(self, request: JobRequest) -> JobResult:
        with translate_errors():
            variables = ConnectionsHook().build_environment()
        with tempfile.TemporaryDirectory(prefix="evergreen-job-") as scratch:
            path = Path(scratch) / "result.json"
            protocol = {REQUEST_VARIABLE: request.model_dump_json(), RESULT_VARIABLE: str(path)}
            process = self._process.run_command(
                [sys.executable, "-W", "ignore", "-m", "include.jobs"],
                env={**variables, **protocol},
                cwd=str(ROOT),
            )
            if process.exit_code:
                failure = _read_failure(path)
                self._link(failure)  # what refuses a day is what its page is read for
                raise _build_failure(self.job, process.exit_code, failure)
            return JobResult.model_validate_json(path.read_text())

    def on_kill(self) -> None:
        self._process.send_sigterm()  # type: ignore[no-untyped-call]


def _read_failure(path: Path) -> dict[str, Any]:
    """What a job that failed wrote about it; nothing, if it was killed."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _build_failure(job: str, exit_code: int, failure: dict[str, Any]) -> AirflowException:
    """The job's own sentence if it left one; otherwise what its exit code tells."""
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with code {exit_code}"
    why = failure.get("error") or f"Job {job} {how} and left no result; its last lines stand above in this log."
    return JobRefused(why, failure.get("kind")) if exit_code == Permanent.exit_code else AirflowException(why)
