"""Who may ask what of a model server, and that no route was forgotten."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from include.kernel.errors import KeyInvalid
from include.serving.app import create_app
from include.serving.routes import POLICY, get_access
from include.serving.settings import Settings
from include.serving.transport.guard import read_api_tokens
from include.serving.wiring import open_service
from tests import credit
from tests.ground import write_manifest

ADMIN, ANN, BOB = "a-serving-token-of-32-characters", "the-token-of-ann-for-tests", "the-token-of-bob-for-tests"
ROW = {"row": credit.rows()[0]}


def settings(place: Path, **told: Any) -> Settings:
    return Settings.model_validate({"slot": "blue", "serving_dir": place, "port": 0, **told})


def client(place: Path, peer: str = "127.0.0.1", **told: Any) -> TestClient:
    return TestClient(
        create_app(open_service(settings(place, **told))), client=(peer, 5000), raise_server_exceptions=False
    )


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def place(stage: Any, tmp_path: Path) -> Path:
    stage("blue")
    return tmp_path


class TestPolicy:
    def test_every_route_of_the_server_stands_in_the_table(self, place: Path) -> None:
        app = create_app(open_service(settings(place)))
        routes = {route.path for route in app.framework.routes if isinstance(route, APIRoute)}
        assert len(routes) >= 15 and {"/admin/reload", "/predict"} <= routes
        assert (routes | set(app.handlers)) - set(POLICY) == set()

    def test_what_is_asked_of_a_path_is_what_the_table_says_of_it(self) -> None:
        assert {path: get_access(path) for path in POLICY} == dict(POLICY)

    @pytest.mark.parametrize("path", sorted(POLICY))
    def test_with_tokens_nobody_passes_without_one_but_to_the_open_routes(self, path: str, place: Path) -> None:
        app = client(place, api_tokens=f"ann:{ANN}", serving_token=ADMIN)
        asked = path.format(name="credit", version="3") if "{" in path else path
        statuses = {app.request(method, asked).status_code for method in ("GET", "POST")}
        assert 401 not in statuses if POLICY[path] == "open" else statuses == {401}

    @pytest.mark.parametrize("path", ["/nowhere", "/Admin/reload", "//admin/reload", "/redoc", "/predict/"])
    def test_a_path_that_is_not_in_the_table_asks_for_a_token_too(self, path: str, place: Path) -> None:
        assert client(place, api_tokens=f"ann:{ANN}").get(path).status_code == 401


class TestTokens:
    @pytest.mark.parametrize(
        "sent", [{}, bearer(""), bearer("wrong-token-of-somebody"), bearer(ANN[:-1]), bearer(f"{ANN}x")]
    )
    def test_an_unknown_token_is_401_with_how_to_send_one(self, sent: dict[str, str], place: Path) -> None:
        answer = client(place, api_tokens=f"ann:{ANN}").post("/predict", json=ROW, headers=sent)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["error"]["message"] == "This needs a known token; send it as Authorization: Bearer."
        assert answer.headers["x-evergreen-slot"] == "blue"

    def test_each_of_several_tokens_and_the_serving_token_may_predict(self, place: Path) -> None:
        hashed = hashlib.sha256(BOB.encode()).hexdigest()
        (place / "tokens").write_text(f"bob:sha256:{hashed}\n")
        app = client(place, api_tokens=f"ann:{ANN}", api_tokens_file=place / "tokens", serving_token=ADMIN)
        for token in (ANN, BOB, ADMIN):
            assert app.post("/predict", json=ROW, headers=bearer(token)).status_code == 200
        assert app.post("/predict", json=ROW, headers=bearer(hashed)).status_code == 401

    def test_two_authorization_headers_are_none(self, place: Path) -> None:
        both = httpx.Headers([("authorization", f"Bearer {ANN}"), ("authorization", f"Bearer {ANN}")])
        assert client(place, api_tokens=f"ann:{ANN}").get("/model", headers=both).status_code == 401

    def test_a_refusal_speaks_the_dialect_of_its_route(self, place: Path) -> None:
        app = client(place, api_tokens=f"ann:{ANN}")
        assert "error_code" in app.post("/invocations", json={}).json()
        assert isinstance(app.post("/v2/models/credit/infer", json={}).json()["error"], str)

    @pytest.mark.parametrize(
        "text", ["ann", "ann:short", "ann:", ":x" * 20, f"admin:{ANN}", f"ann:{ANN},ann:{BOB}", "ann:sha256:zz", ","]
    )
    def test_tokens_that_are_none_end_the_start_in_a_sentence_that_repeats_none(self, text: str, place: Path) -> None:
        with pytest.raises(KeyInvalid) as refused:
            read_api_tokens(settings(place, api_tokens=text))
        assert ANN not in str(refused.value) and "write name:token" in str(refused.value)

    def test_a_file_that_cannot_be_read_is_no_open_door(self, place: Path) -> None:
        with pytest.raises(KeyInvalid, match="EVERGREEN_API_TOKENS_FILE"):
            read_api_tokens(settings(place, api_tokens_file=place / "nothing"))

    def test_no_token_is_in_the_settings_text_or_in_a_log(self, place: Path, caplog: Any) -> None:
        caplog.set_level(logging.DEBUG)
        app = client(place, api_tokens=f"ann:{ANN}", serving_token=ADMIN)
        for token in (ANN, ADMIN, BOB):
            app.post("/admin/reload", headers=bearer(token))
            app.post("/predict", json=ROW, headers=bearer(token))
        said = caplog.text + repr(settings(place, api_tokens=f"ann:{ANN}", serving_token=ADMIN))
        said += app.get("/metrics", headers=bearer(ANN)).text
        assert not [token for token in (ANN, ADMIN, BOB) if token in said]


class TestRate:
    def test_a_token_that_asks_too_often_waits_and_others_do_not(self, place: Path) -> None:
        limit = {"per_second": 0.1, "burst": 3}
        told = write_manifest(place / "pipeline.yaml", {"serving.rate_limit": limit})
        app = client(place, api_tokens=f"ann:{ANN},bob:{BOB}", serving_token=ADMIN, manifest=told)
        answers = [app.post("/predict", json=ROW, headers=bearer(ANN)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        assert app.post("/predict", json=ROW, headers=bearer(BOB)).status_code == 200
        owner = [app.post("/predict", json=ROW, headers=bearer(ADMIN)).status_code for _ in range(6)]
        assert set(owner) == {200}
        assert app.get("/health").status_code == 200


class TestAdmin:
    def reload(self, app: TestClient, token: str | None = ADMIN, **headers: str) -> httpx.Response:
        return app.post("/admin/reload", headers={**(bearer(token) if token else {}), **headers})

    def test_without_a_serving_token_the_route_is_off(self, place: Path) -> None:
        answer = self.reload(client(place), token=None)
        assert answer.status_code == 403 and "set EVERGREEN_SERVING_TOKEN" in answer.json()["error"]["message"]

    def test_no_token_a_wrong_one_and_that_of_a_client_do_not_open_it(self, place: Path) -> None:
        app = client(place, serving_token=ADMIN, api_tokens=f"ann:{ANN}")
        statuses = [self.reload(app, token).status_code for token in (None, ADMIN[:-1], ANN, ADMIN)]
        assert statuses == [401, 401, 403, 200]

    @pytest.mark.parametrize("peer", ["10.0.0.7", "192.168.1.1", "testclient", "::ffff:10.0.0.7", "0.0.0.0"])
    def test_from_another_machine_it_is_closed_even_to_the_token(self, peer: str, place: Path) -> None:
        assert self.reload(client(place, peer, serving_token=ADMIN)).status_code == 403
        assert self.reload(client(place, peer, serving_token=ADMIN, admin_from="anywhere")).status_code == 200

    @pytest.mark.parametrize(
        "header", ["x-forwarded-for", "x-forwarded-proto", "Forwarded", "Via", "x-envoy-attempt-count"]
    )
    def test_what_came_through_a_proxy_did_not_come_from_this_machine(self, header: str, place: Path) -> None:
        assert self.reload(client(place, serving_token=ADMIN), **{header: "127.0.0.1"}).status_code == 403

    def test_a_token_that_is_too_short_to_be_a_secret_is_refused_at_the_start(self, place: Path) -> None:
        with pytest.raises(ValueError, match="serving_token"):
            settings(place, serving_token="short")
