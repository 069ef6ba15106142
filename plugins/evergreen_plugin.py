"""The only AirflowPlugin: puts MLflow, the live model and the proxy into Airflow's navigation, and registers links.

Operators, sensors, triggers and hooks are plain modules of the package beside this file; `.airflowignore` keeps the
plugin loader from executing them one by one under their bare file names.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from evergreen.links import CardLink, MlflowLink


def _views() -> list[dict[str, Any]]:
    places = {
        "MLflow": os.environ.get("EVERGREEN_MLFLOW_URL"),
        "Live model": _below("EVERGREEN_SERVING_URL", "/model"),
    }
    return [
        {"name": name, "href": href, "destination": "nav", "category": "browse"}
        for name, href in places.items()
        if href
    ]


def _below(variable: str, path: str) -> str | None:
    base = os.environ.get(variable)
    return f"{base.rstrip('/')}{path}" if base else None


class EvergreenPlugin(AirflowPlugin):
    name = "evergreen"
    external_views = _views()
    operator_extra_links = [MlflowLink(), CardLink()]  # noqa: RUF012  (the base class declares them so)
