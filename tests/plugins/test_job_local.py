"""A job as a process: what its exit tells Airflow. Real processes, by requests that cannot succeed."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from evergreen.operators.job_local import LocalJobOperator
from tests.ground import free_ports, wait_for
from tests.plugins.conftest import context


@pytest.fixture(autouse=True)
def manifest(small):
    return small()


@pytest.fixture
def silent(monkeypatch) -> Iterator[str]:
    """An MLflow that takes every connection and never answers: a job that asks it runs until somebody ends it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


def operator(job: str, **options) -> LocalJobOperator:
    return LocalJobOperator(task_id="t", job=job, **options)


def ended_by(act, job: LocalJobOperator) -> AirflowException:
    """What the task raises when `act` happens to its process."""
    caught: list[AirflowException] = []

    def run() -> None:
        try:
            job.execute(context())
        except AirflowException as error:
            caught.append(error)

    task = threading.Thread(target=run)
    task.start()
    act(wait_for(lambda: job._process.sub_process).pid)
    task.join(30)
    assert not task.is_alive() and caught
    return caught[0]


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_permanent_error_fails_at_once_with_the_jobs_own_sentence(silent):
    with pytest.raises(AirflowFailException, match=r"^ingest needs params\.day as an ISO date"):
        operator("ingest", job_params={"day": "yesterday"}).execute(context())


def test_a_refused_day_has_its_button_though_the_task_failed(silent, small, tmp_path):
    """The rows that broke the contract are what the page is looked at for."""
    (tmp_path / "2026-08-01.csv").write_text("application_id\nA1\n")
    small(**{"source": {"kind": "files", "path": f"{tmp_path}/{{day}}.csv"}, "contract.data_docs": "always"})
    job = operator("ingest", job_params={"day": "2026-08-01"})
    with pytest.raises(AirflowFailException, match="of the contract and was not published"):
        job.execute(context())
    assert "/data_docs/site/validations/" in job.report_url


def test_a_world_that_is_not_set_up_is_no_reason_to_retry(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(AirflowFailException, match="MLFLOW_TRACKING_URI is not set; start the stack"):
        operator("ingest").execute(context())


def test_a_temporary_error_may_be_retried(monkeypatch):
    [closed] = free_ports(1)
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://127.0.0.1:{closed}")
    with pytest.raises(AirflowException, match=f"MLflow at http://127.0.0.1:{closed} does not answer") as caught:
        operator("monitor").execute(context())
    assert not isinstance(caught.value, AirflowFailException)


def test_a_killed_job_is_told_as_killed_and_may_be_retried(silent):
    error = ended_by(lambda pid: os.kill(pid, signal.SIGKILL), operator("monitor"))
    assert str(error).startswith("Job monitor was killed by signal 9 and left no result")
    assert not isinstance(error, AirflowFailException)


def test_ending_the_task_ends_the_job_and_all_it_started(silent):
    job = operator("monitor")
    groups: list[int] = []

    def end(pid: int) -> None:
        groups.append(pid)
        assert os.getpgid(pid) == pid != os.getpgid(0)
        time.sleep(0.3)
        job.on_kill()

    error = ended_by(end, job)
    assert "was killed by signal 15" in str(error)
    wait_for(lambda: is_gone(groups[0]))


def test_the_form_travels_to_the_job_as_it_is(monkeypatch):
    asked = []

    class Listening(LocalJobOperator):
        def _run(self, request):
            asked.append(request)
            raise AirflowException("enough")

    job = Listening(task_id="t", job="train", job_params={"a": "b"}, params_from=["columns"])
    with pytest.raises(AirflowException, match="enough"):
        job.execute(context(params={"columns": ["Age"], "intent": "rehearsal"}))
    [request] = asked
    assert request.params == {"a": "b", "columns": ["Age"]}
    assert (request.job, request.intent.value, str(request.as_of)) == ("train", "rehearsal", "2026-08-20")
