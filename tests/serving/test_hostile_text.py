"""Text that would be code elsewhere: in a page, in a figure, in a log, in a path. The server keeps it text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from include.model import artifact
from tests import credit
from tests.serving.conftest import bless, point
from tests.serving.test_guard import client

HOSTILE = '=cmd|"/C calc"!A1<script>alert(1)</script>\n\x1b[31m{{7*7}}'
WAYS_OUT = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%252e%252e%252fetc",
    "....//etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
]
ROUTES = ["/", "/v2/models/", "/v2/models/credit/versions/", "/admin/", "/docs/"]


@pytest.fixture
def app(source: Path, tmp_path: Path) -> TestClient:
    """A model whose category, label and reason came from hostile data."""
    place = tmp_path / "hostile"
    shutil.copytree(source, place)
    meta = json.loads((place / "artifact.json").read_text())
    for column in meta["columns"]:
        column["categories"] = [*column["categories"], HOSTILE] if column["kind"] == "category" else []
    (place / "artifact.json").write_text(json.dumps({**meta, "positive": "bad", "why": HOSTILE}))
    digest = artifact.compute_digest(place)
    artifact.copy_verified(place, tmp_path / "artifacts", digest)
    point(tmp_path, digest=digest, blessing=bless(tmp_path, version="3", digest=digest))
    return client(tmp_path)


def test_a_page_shows_it_as_text(app: TestClient) -> None:
    page = app.get("/docs")
    assert page.status_code == 200 and "<script>" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_json_answers_are_json_and_said_to_be(app: TestClient) -> None:
    for path in ("/model", "/openapi.json"):
        answer = app.get(path)
        assert answer.headers["content-type"].startswith("application/json") and answer.json()
    assert app.get("/model").json()["why"] == HOSTILE


def test_a_value_or_a_column_that_is_sent_forges_no_figure(app: TestClient) -> None:
    forged = 'x"} 1\nevergreen_requests_total{path="forged"} 99\n'
    row = {**credit.rows()[0], "Job": forged}
    assert app.post("/predict", json={"row": row}).status_code == 200
    app.post("/predict", json={"row": {forged: 1}})
    app.get("/forged", headers={"x-request-id": "a;b{}", "x-evergreen-key": "k" * 5000})
    text = app.get("/metrics").text
    families = list(text_string_to_metric_families(text))
    assert families and "forged" not in text


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("route", ROUTES)
def test_no_path_leads_to_a_file(route: str, way: str, app: TestClient) -> None:
    for suffix in ("", "/infer"):
        answers: list[Any] = [app.get(route + way + suffix), app.post(route + way + suffix, json={})]
        assert {answer.status_code for answer in answers} <= {401, 403, 404, 405}
        assert "root:" not in "".join(answer.text for answer in answers)
