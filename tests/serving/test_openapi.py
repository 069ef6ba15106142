"""The document tells what the server does: its routes, its columns, and examples that it answers."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from include.serving.app import create_app
from include.serving.routes import get_access
from include.serving.settings import Settings
from include.serving.wiring import open_service
from tests import credit
from tests.serving.conftest import stage_in

CONTENT = "content"
LACKING = ("/feedback", "/predict-and-explain")  # this server keeps no log, this artifact nothing to explain it


@pytest.fixture(scope="module")
def client(source: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    directory = tmp_path_factory.mktemp("described")
    stage_in(directory, source, "blue")
    return _client(directory)


def _client(directory: Path, **told: str) -> TestClient:
    settings = {"slot": "blue", "serving_dir": directory, "port": 0, "unblessed": "allow", **told}
    return TestClient(create_app(open_service(Settings.model_validate(settings))))


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


def test_the_document_is_openapi(document: dict[str, Any], tmp_path: Path) -> None:
    validate(document)
    empty = _client(tmp_path).get("/openapi.json").json()
    validate(empty)
    assert "No model is held now" in empty["info"]["description"]


def test_every_route_is_described_and_every_described_route_is_there(
    document: dict[str, Any], client: TestClient
) -> None:
    routes = client.app.framework.routes  # type: ignore[attr-defined]
    there = {(route.path, method) for route in routes if isinstance(route, APIRoute) for method in route.methods}
    told = {(path, name.upper()) for path, item in document["paths"].items() for name in item if name != "parameters"}
    assert told == there


def test_the_columns_are_those_of_the_model(document: dict[str, Any]) -> None:
    row = document["components"]["schemas"]["Row"]
    kinds = {"number": "number", "category": "string"}
    assert row["required"] == ["Amount"] and row["additionalProperties"] is False
    for column in credit.columns():
        told = row["properties"][column.name]["type"]
        assert told == ([kinds[column.kind], "null"] if column.nullable else kinds[column.kind])


def test_every_example_fits_its_schema_and_is_answered(document: dict[str, Any], client: TestClient) -> None:
    asked = 0
    for path, item in document["paths"].items():
        for kind, body in item.get("post", {}).get("requestBody", {}).get(CONTENT, {}).items():
            for each in body.get("examples", {}).values():
                value, asked = each["value"], asked + 1
                Draft202012Validator({**body["schema"], "components": document["components"]}).validate(value)
                answer = _posted(client, path, kind, value)
                assert answer.status_code == (409 if path in LACKING else 200), answer.text
    assert asked >= 6


def test_no_example_is_a_row_of_the_data(document: dict[str, Any]) -> None:
    example = document["paths"]["/predict"]["post"]["requestBody"][CONTENT]["application/json"]["examples"]["row"]
    assert example["value"]["row"] not in credit.rows()


def test_the_page_needs_no_script_and_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text and "://" not in answer.text and "src=" not in answer.text
    for name in ("/v2/models/{name}/infer", "<code>Amount</code><td>number<td>no", "bad", "/invocations"):
        assert name in answer.text


def test_where_clients_need_a_token_the_document_says_so(source: Path, tmp_path: Path) -> None:
    stage_in(tmp_path, source, "blue")
    told = _client(tmp_path, api_tokens="team:0123456789abcdef", serving_token="fedcba9876543210")
    assert told.get("/openapi.json").status_code == 401
    paths = told.get("/openapi.json", headers={"authorization": "Bearer 0123456789abcdef"}).json()["paths"]
    for path, item in paths.items():
        for name, operation in item.items():
            guarded = get_access(path) != "open"
            if name != "parameters":
                assert ("security" in operation, "401" in operation["responses"]) == (guarded, guarded)
    refusal = paths["/v2/models/{name}/infer"]["post"]["responses"]["429"][CONTENT]["application/json"]["schema"]
    assert refusal == {"$ref": "#/components/schemas/OpenInferenceRefusal"}


def _posted(client: TestClient, path: str, kind: str, value: Any) -> httpx.Response:
    place = path.format(name="credit", version="3")
    body = value if isinstance(value, str) else json.dumps(value)
    answer: httpx.Response = client.post(place, content=body, headers={"content-type": kind})
    return answer
