"""The few calls of Airflow's REST API that a play or a test needs; each waits for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

END_STATES = ("success", "failed")
Value = TypeVar("Value")


class PlayStopped(Exception):
    """Something did not happen in time, or went another way than it should; the message says what."""


def wait_for(what: str, poll: Callable[[], Value | None], seconds: float, interval: float = 0.5) -> Value:
    """The first answer of `look` that is not None. Raises `PlayStopped` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = poll()
        if value is not None:
            return value
        time.sleep(interval)
    raise PlayStopped(f"{what}: not seen within {seconds:g} s.")


class AirflowApi:
    def __init__(self, base: str, user: str, password: str) -> None:
        self.base = base.rstrip("/")
        answer = httpx.post(f"{self.base}/auth/token", json={"username": user, "password": password}, timeout=30)
        answer.raise_for_status()
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        self._http = httpx.Client(base_url=f"{self.base}/api/v2", headers=bearer, timeout=60)

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Asks again while Airflow answers 5xx or, on a machine that is busy, not in time."""

        def poll() -> httpx.Response | None:
            try:
                answer = self._http.get(path, params=params)
            except httpx.ReadTimeout:
                return None
            return None if answer.is_server_error else answer

        return self._parse_answer(wait_for(f"an answer to GET {path}", poll, 240))

    def read_page(self, url: str) -> str:
        """A page under Airflow's address, as a person who is logged in reads it."""
        return self._http.get(url).raise_for_status().text

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, content)

    def _send(self, method: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """Asks again while Airflow answers 5xx: its SQLite was locked, and nothing was done."""

        def poll() -> httpx.Response | None:
            answer = self._http.request(method, path, json=content)
            return None if answer.is_server_error else answer

        return self._parse_answer(wait_for(f"an answer to {method} {path}", poll, 60))

    def _parse_answer(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise PlayStopped(
                f"Airflow answered {answer.status_code} to {answer.request.url.path}: {answer.text[:300]}"
            )
        content: dict[str, Any] = answer.json()
        return content

    def list_dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self.get("/dags", limit=100)["dags"]}

    def list_import_errors(self) -> list[str]:
        return [error["stack_trace"] for error in self.get("/importErrors")["import_errors"]]

    def unpause(self, dag_id: str, paused: bool = False) -> None:
        self._send("PATCH", f"/dags/{dag_id}", {"is_paused": paused})

    def start_run(self, dag_id: str, **conf: Any) -> str:
        """The run id of a new manual run."""
        return str(self.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def list_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        return list(self.get(f"/dags/{dag_id}/dagRuns", limit=100, order_by="id")["dag_runs"])

    def read_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.get(f"/dags/{dag_id}/dagRuns/{run_id}")

    def wait_for_end(self, dag_id: str, run_id: str, seconds: float) -> dict[str, Any]:
        """Waits for the end of a run."""

        def poll() -> dict[str, Any] | None:
            found = self.read_run(dag_id, run_id)
            return found if found["state"] in END_STATES else None

        return wait_for(f"the end of {dag_id} {run_id}", poll, seconds)

    def wait_for_next_run(self, dag_id: str, known: set[str], seconds: float) -> dict[str, Any]:
        """Waits for a run that is not among `known`, and for its end."""

        def poll() -> str | None:
            return next((run["dag_run_id"] for run in self.list_runs(dag_id) if run["dag_run_id"] not in known), None)

        run_id = wait_for(f"a new run of {dag_id}", poll, seconds)
        return self.wait_for_end(dag_id, run_id, seconds)

    def list_run_ids(self, dag_id: str) -> set[str]:
        return {run["dag_run_id"] for run in self.list_runs(dag_id)}

    def read_task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        instances = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in instances}

    def read_result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.get(path, deserialize=True)["value"]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, **form: Any) -> None:
        """Answers a task that waits for a person, as its form does."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        self._send("PATCH", path, {"chosen_options": [option], "params_input": form})

    def backfill(self, dag_id: str, first: str, last: str, active: int) -> int:
        request = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
        return int(self.post("/backfills", {**request, "max_active_runs": active, "reprocess_behavior": "none"})["id"])

    def list_asset_events(self, name: str) -> list[dict[str, Any]]:
        """All events of an asset, oldest first."""
        assets = [asset["id"] for asset in self.get("/assets", limit=100)["assets"] if asset["name"] == name]
        if not assets:
            return []
        return list(self.get("/assets/events", asset_id=assets[0], limit=100, order_by="timestamp")["asset_events"])

    def build_page_url(self, dag_id: str, run_id: str = "", task_id: str = "") -> str:
        """The page in the UI."""
        run = f"/runs/{run_id}" if run_id else ""
        return f"{self.base}/dags/{dag_id}{run}" + (f"/tasks/{task_id}" if task_id else "")
