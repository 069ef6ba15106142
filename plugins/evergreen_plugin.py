"""The only AirflowPlugin: entries in Airflow's navigation, the buttons on tasks, and the pages of reports.

Operators, sensors, triggers and hooks are plain modules of the package beside this file; `.airflowignore` keeps the
plugin loader from executing them one by one under their bare file names.
"""

import os
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from evergreen.links import CardLink, MlflowLink, ReportLink
from evergreen.pages import PREFIX, StorePages


def _list_views() -> list[dict[str, Any]]:
    addresses = {
        "MLflow": os.environ.get("EVERGREEN_MLFLOW_URL"),
        "Live model": _build_url("EVERGREEN_SERVING_URL", "/model"),
    }
    return [
        {"name": name, "href": href, "destination": "nav", "category": "browse"}
        for name, href in addresses.items()
        if href
    ]


def _build_url(variable: str, path: str) -> str | None:
    base = os.environ.get(variable)
    return f"{base.rstrip('/')}{path}" if base else None


def _list_pages() -> list[dict[str, Any]]:
    store = os.environ.get("EVERGREEN_STORE")
    return [{"app": StorePages(Path(store)), "url_prefix": PREFIX, "name": "Evergreen's reports"}] if store else []


class EvergreenPlugin(AirflowPlugin):
    name = "evergreen"
    fastapi_apps = _list_pages()
    external_views = _list_views()
    operator_extra_links = [MlflowLink(), CardLink(), ReportLink()]  # noqa: RUF012  (the base class declares them so)
