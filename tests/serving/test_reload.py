"""Another release into a running server: a good one takes over without a dropped request, a bad one changes nothing."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.model import artifact
from include.model.blessing.blessing import render_public_pem
from include.model.compiled import compiling
from tests import blessed, credit
from tests.serving.conftest import bless, point
from tests.serving.test_guard import ADMIN, ROW, bearer, client
from tests.serving.test_model_server import process


def release(place: Path, version: str, kind: str = "logistic") -> str:
    """A compiled model as a release of this version leaves it; answers its digest."""
    source = place / f"source-{kind}"
    model = credit.trained(kind)
    artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, source)
    digest = artifact.compute_digest(source)
    artifact.copy_verified(source, place / "artifacts", digest)
    point(place, version=version, digest=digest, blessing=bless(place, version=version, digest=digest))
    return digest


class TestOne:
    @pytest.fixture(autouse=True)
    def serving(self, tmp_path: Path) -> None:
        self.place, self.first = tmp_path, release(tmp_path, "3")
        self.app = client(tmp_path, serving_token=ADMIN, trusted_keys=render_public_pem(blessed.KEY))

    def reload(self) -> httpx.Response:
        return self.app.post("/admin/reload", headers=bearer(ADMIN))

    def answers(self) -> str:
        return str(self.app.post("/predict", json=ROW).json()["version"])

    def test_a_good_release_takes_over(self) -> None:
        assert self.answers() == "3"
        digest = release(self.place, "4", "boosting")
        told = self.reload().json()
        assert told == {"status": "loaded", "before": "3", "version": "4", "digest": digest}
        assert self.answers() == "4" and self.app.get("/model").json()["digest"] == digest
        assert self.app.get("/ready").json()["version"] == "4"

    def test_metrics_tell_the_new_one_alone_as_held_and_keep_the_counts_of_the_old(self) -> None:
        self.answers()
        release(self.place, "4", "boosting")
        self.reload()
        text = self.app.get("/metrics").text
        assert 'evergreen_ready{slot="blue",version="4"} 1.0' in text
        assert 'evergreen_ready{slot="blue",version="3"}' not in text
        assert 'evergreen_score_count{slot="blue",version="3"} 1.0' in text

    def bad(self, status: int, says: str) -> None:
        answer = self.reload()
        assert answer.status_code == status
        message = answer.json()["error"]["message"]
        assert says in message and message.endswith("version 3 goes on serving.")
        assert self.answers() == "3" and self.app.get("/ready").status_code == 200

    def test_an_unblessed_one_leaves_the_old_serving_and_says_why(self) -> None:
        point(self.place, version="4", digest=release(self.place, "4"), blessing=None)
        self.bad(422, "names no blessing of version 4")

    def test_a_tampered_one_too(self) -> None:
        digest = release(self.place, "4", "boosting")
        with (self.place / "artifacts" / digest / "artifact.json").open("a") as file:
            file.write(" ")
        self.bad(422, "has the digest")

    def test_a_slot_file_that_is_gone_or_no_file_of_ours_too(self) -> None:
        path = self.place / "slots" / "blue.json"
        path.write_text("{")
        self.bad(422, "cannot be read")
        path.unlink()
        self.bad(409, "The slot is empty")

    def test_a_broken_slot_is_mended_by_it(self) -> None:
        digest = release(self.place, "4", "boosting")
        kept = self.place / "kept"
        shutil.move(self.place / "artifacts" / digest, kept)
        app = client(self.place, serving_token=ADMIN, trusted_keys=render_public_pem(blessed.KEY))
        assert app.post("/admin/reload", headers=bearer(ADMIN)).json()["error"]["message"].endswith("nothing serves.")
        shutil.move(kept, self.place / "artifacts" / digest)
        assert app.post("/admin/reload", headers=bearer(ADMIN)).status_code == 200
        assert app.get("/ready").status_code == 200

    def test_every_call_is_audited_with_who_from_where_and_what_came_of_it(self, caplog: Any) -> None:
        caplog.set_level(logging.INFO, "evergreen.audit")
        release(self.place, "4", "boosting")
        self.reload()
        point(self.place, version="5", digest=self.first)
        self.reload()
        found = [record for record in caplog.records if record.name == "evergreen.audit"]
        told = [(r.caller, vars(r)["from"], r.status, r.before, r.version) for r in found]  # type: ignore[attr-defined]
        assert told == [("admin", "127.0.0.1", 200, "3", "4"), ("admin", "127.0.0.1", 422, "4", "4")]

    def test_the_model_tells_who_allowed_it_and_by_which_hashes(self) -> None:
        told = self.app.get("/model").json()
        assert told["trusted_keys"] == [blessed.keyid(blessed.KEY)] and told["unblessed"] == "refuse"
        assert told["blessed"]["hashes"]["digest"] == told["digest"] == self.first
        assert told["blessed"]["hashes"]["code"] == "b" * 64
        assert (told["path"], told["blessing"]) == ("compiled", json.loads(self.slot_file())["blessing"])

    def slot_file(self) -> str:
        return (self.place / "slots" / "blue.json").read_text()


def test_reloads_under_load_drop_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two releases in turn, eight keep-alive clients: every answer is a 200 of a version that was held meanwhile."""
    monkeypatch.setenv("EVERGREEN_SERVING_TOKEN", ADMIN)
    monkeypatch.setenv("EVERGREEN_TRUSTED_KEYS", render_public_pem(blessed.KEY))
    release(tmp_path, "3")
    seen: list[tuple[int, str]] = []
    done = threading.Event()
    with process(tmp_path) as (app, _):
        asking = [threading.Thread(target=_ask, args=(str(app.base_url), done, seen)) for _ in range(8)]
        for each in asking:
            each.start()
        for turn in range(10):
            release(tmp_path, str(4 + turn), ("boosting", "logistic")[turn % 2])
            answer = app.post("/admin/reload", headers=bearer(ADMIN), timeout=30)
            assert answer.status_code == 200, answer.text
        done.set()
        for each in asking:
            each.join(20)
    assert {status for status, _ in seen} == {200}
    assert len({version for _, version in seen}) >= 5 and len(seen) > 100


def _ask(url: str, done: threading.Event, seen: list[tuple[int, str]]) -> None:
    expected: dict[str, float] = {}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as asking:
        while not done.is_set():
            answer = asking.post("/predict", json=ROW)
            content: Any = answer.json()
            seen.append((answer.status_code, content.get("version")))
            probability = content["predictions"][0]["probability"]
            assert expected.setdefault(content["version"], probability) == probability
