"""Reports as pages under Airflow's own address, so that a link on a task opens where the task is looked at.

A browser follows no link from a web page to a file. Only the folders named here are served, and only from the store's
own directory: snapshots are never among them, but the pages of the contract show the rows that broke it. Like
predictions, pages ask for no login; the address is this machine's. Data Docs load scripts from elsewhere, so every page
is shut off from Airflow's own origin.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Any

from include.data.wiring import find_data_docs

Scope = MutableMapping[str, Any]
Channel = Callable[..., Awaitable[Any]]
PREFIX = "/evergreen"
SERVED_FOLDERS = ("backtests", "reports", "data_docs")
STATIC_PREFIX = "data_docs/site/static/"


class StorePages:
    """An ASGI application; the web framework is loaded by the first request, since every worker loads the plugin."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        await self._files(scope, receive, send)

    @cached_property
    def _files(self) -> Any:
        from starlette.staticfiles import StaticFiles

        class ProtectedFiles(StaticFiles):
            def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
                return super().lookup_path(path) if path.split("/")[0] in SERVED_FOLDERS else ("", None)

            async def get_response(self, path: str, scope: Scope) -> Any:
                if not path.startswith(STATIC_PREFIX):
                    await _require_login(scope)
                answer = await super().get_response(path, scope)
                answer.headers["Content-Security-Policy"] = "sandbox allow-scripts allow-popups"
                return answer

        return ProtectedFiles(directory=self._root, html=True, check_dir=False)


async def _require_login(scope: Scope) -> None:
    """As Airflow asks its own visitors: a bearer token, else the UI's cookie. Raises HTTPException 401 or 403."""
    from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
    from airflow.api_fastapi.core_api.security import resolve_user_from_token
    from starlette.requests import Request

    request = Request(scope)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    await resolve_user_from_token(token if scheme.lower() == "bearer" else request.cookies.get(COOKIE_NAME_JWT_TOKEN))


def build_page_url(page: str) -> str:
    """The page's address under Airflow; for a page elsewhere, that of the file."""
    root, base = os.environ.get("EVERGREEN_STORE"), os.environ.get("EVERGREEN_AIRFLOW_URL")
    if root and base and Path(page).is_relative_to(root):
        return f"{base.rstrip('/')}{PREFIX}/{Path(page).relative_to(root)}"
    return Path(page).absolute().as_uri()


def find_page(outputs: Mapping[str, Any]) -> str | None:
    """The page a job drew: its own, or that of the day in the site of Data Docs, or that of its quarantine."""
    if day := outputs.get("data_docs") or outputs.get("quarantine_page"):
        return str(find_data_docs() / "site" / day)
    return outputs.get("page")
