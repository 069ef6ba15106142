"""Reports under Airflow's address: what is shown, and that nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI

from evergreen.operators.job_local import LocalJobOperator
from evergreen.pages import PREFIX, StorePages, build_page_url, find_page


@pytest.fixture
def store(tmp_path: Path) -> Path:
    places = ["backtests/m/index.html", "reports/3/2026-08-01.html", "snapshots/d/rows.html", "ledger.jsonl"]
    for place in [*places, "data_docs/site/static/looks.css", "data_docs/site/day.html"]:
        (tmp_path / "store" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / place).write_text(place)
    (tmp_path / "secret.html").write_text("secret")
    return tmp_path / "store"


@pytest.fixture(scope="module")
def token(airflow_database: None) -> str:
    """What Airflow gives to a user who logs in."""
    return create_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="viewer"))


@pytest.fixture
def visitor(store: Path) -> Callable[..., httpx.Response]:
    """Asks the application, mounted as Airflow mounts that of a plugin."""
    app = FastAPI()
    app.mount(PREFIX, StorePages(store))

    async def asked(place: str, headers: dict[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
            return await client.get(f"{PREFIX}/{place}", headers=headers)

    return lambda place, **headers: asyncio.run(asked(place, headers))


@pytest.fixture
def browser(visitor: Callable[..., httpx.Response], token: str) -> Callable[[str], httpx.Response]:
    """The visitor, logged in to Airflow."""
    return lambda place: visitor(place, cookie=f"_token={token}")


def test_a_page_is_for_whoever_is_logged_in(visitor, token):
    assert visitor("data_docs/site/day.html").status_code == 401
    assert visitor("data_docs/site/day.html", cookie="_token=forged").status_code == 403
    assert visitor("data_docs/site/day.html", authorization=f"Bearer {token}").status_code == 200


def test_the_looks_of_data_docs_are_for_everybody_and_no_way_round(visitor):
    assert visitor("data_docs/site/static/looks.css").status_code == 200
    assert visitor("data_docs/site/static/../day.html").status_code in (401, 404)
    assert visitor("data_docs/site/static/%2e%2e/day.html").status_code in (401, 404)


@pytest.mark.parametrize("place", ["backtests/m/", "backtests/m/index.html", "reports/3/2026-08-01.html"])
def test_reports_are_shown(browser, place):
    answer = browser(place)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "place",
    [
        "ledger.jsonl",
        "snapshots/d/rows.html",
        "reports/../ledger.jsonl",
        "reports/..%2fledger.jsonl",
        "reports/../../secret.html",
        "reports/%2e%2e/%2e%2e/secret.html",
        "",
        "data_docs/index.html",
    ],
)
def test_nothing_else_is(browser, place):
    assert browser(place).status_code == 404


def test_a_page_of_the_store_has_an_address_under_airflow_and_any_other_that_of_its_file(store, monkeypatch):
    monkeypatch.setenv("EVERGREEN_STORE", str(store))
    monkeypatch.setenv("EVERGREEN_AIRFLOW_URL", "http://127.0.0.1:8080")
    found = build_page_url(str(store / "backtests/m/index.html"))
    assert found == f"http://127.0.0.1:8080{PREFIX}/backtests/m/index.html"
    assert build_page_url("/elsewhere/page.html") == "file:///elsewhere/page.html"


def test_a_job_has_a_button_for_its_report():
    assert "Report" in {link.name for link in LocalJobOperator.operator_extra_links}


def test_the_page_of_an_ingest_is_the_one_in_data_docs(store, monkeypatch):
    monkeypatch.setenv("EVERGREEN_STORE", str(store))
    assert find_page({"data_docs": "day/2026-08-01.html"}) == str(store / "data_docs/site/day/2026-08-01.html")
    assert find_page({"page": "/a/page.html", "data_docs": None}) == "/a/page.html"
    assert find_page({"quarantine_page": "quarantine/d.html"}) == str(store / "data_docs/site/quarantine/d.html")
    assert find_page({}) is None
