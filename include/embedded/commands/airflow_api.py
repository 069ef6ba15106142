"""The few calls of Airflow's REST API that a play or a test needs; each waits for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

ENDED = ("success", "failed")
Found = TypeVar("Found")


class PlayStopped(Exception):
    """Something did not happen in time, or went another way than it should; the message says what."""


def wait_for(what: str, look: Callable[[], Found | None], seconds: float, interval: float = 0.5) -> Found:
    """The first answer of `look` that is not None. Raises `PlayStopped` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
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

        def look() -> httpx.Response | None:
            try:
                answer = self._http.get(path, params=params)
            except httpx.ReadTimeout:
                return None
            return None if answer.is_server_error else answer

        return self._checked(wait_for(f"an answer to GET {path}", look, 240))

    def page(self, url: str) -> str:
        """A page under Airflow's address, as a person who is logged in reads it."""
        return self._http.get(url).raise_for_status().text

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, content)

    def _send(self, method: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """Asks again while Airflow answers 5xx: its SQLite was locked, and nothing was done."""

        def look() -> httpx.Response | None:
            answer = self._http.request(method, path, json=content)
            return None if answer.is_server_error else answer

        return self._checked(wait_for(f"an answer to {method} {path}", look, 60))

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise PlayStopped(
                f"Airflow answered {answer.status_code} to {answer.request.url.path}: {answer.text[:300]}"
            )
        found: dict[str, Any] = answer.json()
        return found

    def dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self.get("/dags", limit=100)["dags"]}

    def import_errors(self) -> list[str]:
        return [error["stack_trace"] for error in self.get("/importErrors")["import_errors"]]

    def unpause(self, dag_id: str, paused: bool = False) -> None:
        self._send("PATCH", f"/dags/{dag_id}", {"is_paused": paused})

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """The run id of a new manual run."""
        return str(self.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        return list(self.get(f"/dags/{dag_id}/dagRuns", limit=100, order_by="id")["dag_runs"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.get(f"/dags/{dag_id}/dagRuns/{run_id}")

    def ended(self, dag_id: str, run_id: str, seconds: float) -> dict[str, Any]:
        """Waits for the end of a run."""

        def look() -> dict[str, Any] | None:
            found = self.run(dag_id, run_id)
            return found if found["state"] in ENDED else None

        return wait_for(f"the end of {dag_id} {run_id}", look, seconds)

    def next_run(self, dag_id: str, known: set[str], seconds: float) -> dict[str, Any]:
        """Waits for a run that is not among `known`, and for its end."""

        def look() -> str | None:
            return next((run["dag_run_id"] for run in self.runs(dag_id) if run["dag_run_id"] not in known), None)

        run_id = wait_for(f"a new run of {dag_id}", look, seconds)
        return self.ended(dag_id, run_id, seconds)

    def run_ids(self, dag_id: str) -> set[str]:
        return {run["dag_run_id"] for run in self.runs(dag_id)}

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        found = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def returned(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.get(path, deserialize=True)["value"]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, **form: Any) -> None:
        """Answers a task that waits for a person, as its form does."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        self._send("PATCH", path, {"chosen_options": [option], "params_input": form})

    def backfill(self, dag_id: str, first: str, last: str, active: int) -> int:
        wish = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
        return int(self.post("/backfills", {**wish, "max_active_runs": active, "reprocess_behavior": "none"})["id"])

    def asset_events(self, name: str) -> list[dict[str, Any]]:
        """All events of an asset, oldest first."""
        assets = [asset["id"] for asset in self.get("/assets", limit=100)["assets"] if asset["name"] == name]
        if not assets:
            return []
        return list(self.get("/assets/events", asset_id=assets[0], limit=100, order_by="timestamp")["asset_events"])

    def url(self, dag_id: str, run_id: str = "", task_id: str = "") -> str:
        """The page in the UI."""
        run = f"/runs/{run_id}" if run_id else ""
        return f"{self.base}/dags/{dag_id}{run}" + (f"/tasks/{task_id}" if task_id else "")
