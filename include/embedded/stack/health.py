"""Is a program doing its work? Alive is not enough: a scheduler can run and schedule nothing.

A probe answers with None when all is well, else with a few words on what is missing. Airflow's components are judged by
their heartbeats, and only by one younger than the process: after a crash the dead one's last heartbeat still counts as
healthy for half a minute, which would call a stack up that isn't.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx

Probe = Callable[[float], str | None]  # given the process's start (epoch seconds)
# No proxy from the environment: these addresses are this machine's own. One client, since each new one loads the
# certificates again, which adds up at several questions a second.
CLIENT = httpx.Client(timeout=2.0, trust_env=False)


def build_http_probe(url: str) -> Probe:
    """Healthy when the URL answers 200."""

    def probe(_started: float) -> str | None:
        response = _get(url)
        if isinstance(response, str):
            return response
        return None if response.status_code == 200 else f"answers {response.status_code}"

    return probe


def build_heartbeat_probe(airflow_url: str, component: str) -> Probe:
    """Healthy when Airflow says so of the component, by a heartbeat of this very process."""

    def probe(started: float) -> str | None:
        response = _get(f"{airflow_url}/api/v2/monitor/health")
        if isinstance(response, str):
            return response
        if response.status_code != 200:
            return f"answers {response.status_code}"
        return _check_heartbeat(response.json().get(component) or {}, component, started)

    return probe


def _check_heartbeat(report: dict[str, Any], component: str, started: float) -> str | None:
    if report.get("status") != "healthy":
        return f"{component} is {report.get('status') or 'unknown'}"
    beat = report.get(f"latest_{component}_heartbeat")
    if beat and datetime.fromisoformat(beat).timestamp() < started - 1:
        return "no heartbeat yet"
    return None


def _get(url: str) -> httpx.Response | str:
    try:
        return CLIENT.get(url)
    except httpx.HTTPError:
        return "does not answer"
