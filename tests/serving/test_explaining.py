"""/predict-and-explain by real servers, and what becomes of them when the explainer is in trouble."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml

from include.manifest import DEFAULT_PATH
from include.model import artifact, export
from include.model.artifact import ServableModel
from include.model.calibration import Calibration
from include.model.explanation import explanation
from tests import credit
from tests.ground import free_ports, wait_for
from tests.serving.conftest import stage_in

ROOT = Path(__file__).resolve().parents[2]
ROWS = credit.rows()[:40]
LIMITS = {"explain": {"queue_rows": 30, "max_rows": 25, "top_reasons": 2}, "deadline_ms": 60_000}
REASONS = {"Seniority": {"code": "S1", "text": "Few years in the job", "lowered": "Many years in the job"}}
Damage = Callable[[Path], None]


class Server:
    def __init__(self, process: subprocess.Popen[bytes], http: httpx.Client) -> None:
        self.process, self._http = process, http

    def ask(self, rows: list[Any], path: str = "/predict-and-explain") -> httpx.Response:
        return self._http.post(path, json={"rows": rows})

    def explainers(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children()
        return [each for each in found if "include.serving.explain.explainer" in each.cmdline()]

    def counted(self, name: str) -> float:
        text = self._http.get("/metrics").text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextmanager
def served(place: Path, kind: str, damage: Damage | None = None, **serving: Any) -> Iterator[Server]:
    """A server of this model, exported as the training does it; `damage` is done before the digest is taken."""
    source = place / "source"
    source.mkdir()
    model = credit.trained(kind)
    meta = model.meta.model_copy(
        update={"calibration": Calibration(method="sigmoid", slope=1.2, intercept=-0.3), "golden": ()}
    )
    export.write(ServableModel(meta, model.pipeline), source, credit.rows()[:200])
    if damage:
        damage(source)
    stage_in(place, source, "blue")
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["serving"] |= serving or LIMITS | {"reasons": REASONS}
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    with _running(place) as server:
        yield server


@contextmanager
def _running(place: Path) -> Iterator[Server]:
    [port] = free_ports(1)
    told = {
        "SLOT": "blue",
        "SERVING_DIR": place,
        "PORT": port,
        "MANIFEST": place / "pipeline.yaml",
        "UNBLESSED": "allow",
    }
    environment = {**os.environ, **{f"EVERGREEN_{name}": str(value) for name, value in told.items()}}
    command = [sys.executable, "-W", "ignore", "-m", "include.serving"]
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=90) as http,
    ):
        try:
            wait_for(lambda: _answers(http))
            yield Server(process, http)
        finally:
            process.kill()


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def boosting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("boosting"), "boosting") as server:
        yield server


def test_every_row_is_answered_with_what_moved_its_probability(boosting: Server) -> None:
    predicted = boosting.ask(ROWS[:20], "/predict").json()["predictions"]
    assert boosting.explainers() == []  # nobody has asked for an explanation yet
    answer = boosting.ask(ROWS[:20])
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["version"], told["slot"], told["space"]) == ("3", "blue", "log_odds")
    for plain, explained in zip(predicted, told["predictions"], strict=True):
        assert plain.items() <= explained.items()
        total = explained["base_value"] + sum(explained["contributions"].values())
        odds = plain["probability"] / (1 - plain["probability"])
        assert total == pytest.approx(math.log(odds), abs=1e-6)
        assert set(explained["contributions"]) == {column.name for column in credit.columns()}
    assert len({explained["base_value"] for explained in told["predictions"]}) == 1
    assert len(boosting.explainers()) == 1


def test_reasons_are_the_manifests_and_the_strongest_first(boosting: Server) -> None:
    told = boosting.ask(ROWS[:25]).json()["predictions"]
    for explained in told:
        for kind, sign in (("reasons", 1), ("mitigating", -1)):
            moved = {name: sign * value for name, value in explained["contributions"].items()}
            strongest = sorted((value for value in moved.values() if value > 1e-6), reverse=True)[:2]
            assert [abs(reason["contribution"]) for reason in explained[kind]] == strongest
    texts = {reason["text"] for explained in told for reason in explained["reasons"] + explained["mitigating"]}
    assert texts & {"Few years in the job", "Many years in the job"} and any("the risk" in text for text in texts)


def test_the_same_row_in_another_order_of_fields_gives_the_same_answer(boosting: Server) -> None:
    backwards = dict(reversed(ROWS[0].items()))
    first, second = (boosting.ask([row]).json()["predictions"] for row in (ROWS[0], backwards))
    assert first == second


def test_a_refused_row_is_refused_as_by_predict(boosting: Server) -> None:
    assert boosting.ask([{**ROWS[0], "Age": "old"}]).status_code == 422
    many = boosting.ask(ROWS[:26])
    assert many.status_code == 422 and "25 rows at most explained" in many.text


def test_beyond_the_queue_callers_are_told_to_come_back_and_nobody_else_notices(boosting: Server) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: boosting.ask(ROWS[:20]), range(60)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
    assert boosting.ask(ROWS[:5]).status_code == 200


def test_a_killed_explainer_is_started_again_and_predictions_do_not_notice(boosting: Server) -> None:
    boosting.ask(ROWS[:1])
    [first] = boosting.explainers()
    first.send_signal(signal.SIGKILL)
    assert boosting.ask(ROWS[:5], "/predict").status_code == 200
    wait_for(lambda: boosting.ask(ROWS[:1]).status_code == 200)
    [second] = boosting.explainers()
    assert second.pid != first.pid and boosting.process.poll() is None
    assert boosting.counted("evergreen_explainer_starts_total") >= 2


def test_an_explainer_that_hangs_costs_an_answer_but_neither_the_server_nor_the_next_one(boosting: Server) -> None:
    wait_for(lambda: boosting.ask(ROWS[:1]).status_code == 200)
    [stopped] = boosting.explainers()
    stopped.suspend()
    hurried = {"x-evergreen-timeout-ms": "300"}
    late = boosting._http.post("/predict-and-explain", json={"row": ROWS[0]}, headers=hurried)
    assert late.status_code == 503 and "retry-after" in late.headers and "not ready in time" in late.text
    assert boosting.ask(ROWS[:5], "/predict").status_code == 200
    stopped.resume()
    assert boosting.ask(ROWS[:3]).status_code == 200


def test_the_explainer_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with served(tmp_path, "boosting", explain={"start": "ready"}) as server:
        wait_for(lambda: len(server.explainers()) == 1)  # without a question; it is importing now
        [explainer] = server.explainers()
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        wait_for(lambda: not explainer.is_running() or explainer.status() == psutil.STATUS_ZOMBIE)


def test_an_explanation_that_misses_the_score_is_withheld_and_counted(tmp_path: Path) -> None:
    """One leaf of one tree is wrong: rows that end in it are refused, the others are explained."""

    def wrong_leaf(source: Path) -> None:
        tables = dict(np.load(source / explanation.TABLES_FILE))
        leaves = np.flatnonzero(tables["left"][: tables["starts"][1]] == -1)
        seen = [leaf for leaf in leaves if tables["weights"][leaf] < 0.2 * tables["weights"][0]]
        tables["values"][max(seen, key=lambda leaf: tables["weights"][leaf])] += 0.05
        np.savez(source / explanation.TABLES_FILE, **tables)

    with served(tmp_path, "boosting", wrong_leaf) as server:
        answers = [server.ask([row]) for row in ROWS]
        withheld = [answer for answer in answers if answer.status_code == 500]
        assert withheld and all("miss the model's score" in answer.text for answer in withheld)
        assert not any('contributions"' in answer.text for answer in withheld)
        assert server.counted("evergreen_not_additive_total") == len(withheld)
        assert {server.ask([row], "/predict").status_code for row in ROWS} == {200}


def test_an_explainer_that_is_wrong_about_everything_is_never_asked(tmp_path: Path) -> None:
    def wrong_offset(source: Path) -> None:
        path = source / explanation.EXPLANATION_FILE
        document = explanation.Explanation.model_validate_json(path.read_bytes())
        path.write_text(document.model_copy(update={"offset": document.offset + 1}).model_dump_json())

    with served(tmp_path, "boosting", wrong_offset) as server:
        for _ in range(2):
            answer = server.ask(ROWS[:1])
            assert answer.status_code == 500 and "miss the model's score" in answer.text
        assert server.counted("evergreen_explainer_starts_total") == 1
        assert server.ask(ROWS[:1], "/predict").status_code == 200


def test_a_linear_model_is_explained_without_any_process(tmp_path: Path) -> None:
    with served(tmp_path, "logistic") as server:
        answer = server.ask(ROWS[:3])
        assert answer.status_code == 200 and answer.json()["space"] == "log_odds"
        huge = server.ask([{**ROWS[0], "Income": 1.7e308, "Assets": -1.7e308}])
        assert huge.status_code in (200, 422)
        assert server.explainers() == []


def test_an_artifact_from_before_and_a_manifest_that_says_no_are_told_apart(tmp_path: Path) -> None:
    def from_before(source: Path) -> None:
        for name in (explanation.EXPLANATION_FILE, explanation.TABLES_FILE):
            (source / name).unlink()

    with served(tmp_path, "boosting", from_before) as server:
        answer = server.ask(ROWS[:1])
        assert answer.status_code == 409 and "train the model again" in answer.text
        assert server.ask(ROWS[:1], "/predict").status_code == 200 and server.explainers() == []
    (tmp_path / "off").mkdir()
    with served(tmp_path / "off", "logistic", explain={"start": "off"}) as server:
        answer = server.ask(ROWS[:1])
        assert answer.status_code == 409 and "serving.explain.start" in answer.text


def test_a_generic_pipeline_is_explained_by_its_own_process(tmp_path: Path) -> None:
    """Saved as a pipeline though it could be compiled: what a feature function makes of every model."""

    def generic(source: Path) -> None:
        meta = artifact.read_meta(source)
        model = ServableModel(meta.model_copy(update={"runtime": "skops"}), credit.trained("logistic").pipeline)
        for path in source.iterdir():
            path.unlink()
        artifact.save(model.pipeline, model.meta, source)
        explanation.write(model, source, export.build_frame(ROWS, meta.columns))

    with served(tmp_path, "logistic", generic) as server:
        answer = server.ask(ROWS[:3])
        assert answer.status_code == 200, answer.text
        assert answer.json()["space"] == "log_odds" and len(server.explainers()) == 1
