"""What a slot keeps of its last answers: only while somebody asks, only so much, and no gap that is not told."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from include.data.spec import GroupsSpec
from include.feedback.core.prediction_records import is_sampled
from include.model.blessing.blessing import render_public_pem
from include.serving.exchange import Answer, Problem, RequestContext
from include.serving.log import recent_answers as module
from include.serving.log.recent_answers import RecentAnswerBuffer, RecentAnswersQuery
from include.serving.words.headers import COPY
from tests import blessed, credit
from tests.serving.test_guard import ADMIN, bearer, client

GROUPS = GroupsSpec(business=("Home",), protected=("Age",), bands={"Age": (30.0,)})
ROW = {"Home": "rent", "Age": 41.0, "Income": 100.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Slot:
    def __init__(self) -> None:
        self.clock = Clock()
        self.recent = RecentAnswerBuffer(GROUPS, lambda: {"Home": {"rent"}}, self.clock)

    def answers(self, id_: str, rows: int = 1, answer: Answer | Problem | None = None, copy: bool = False) -> None:
        found = answer or Answer("3", "blue", "d" * 64, [0.4] * rows, ["good"] * rows, [True] * rows)
        asked = RequestContext(id_, None, 0.0, self.clock.now, copy)
        self.recent.append(asked, [ROW] * rows, found, 0.01)

    def told(self, **question) -> list[str]:
        return [each["id"] for each in self.recent.answer_query(RecentAnswersQuery(**question))["answers"]]


@pytest.fixture
def slot() -> Slot:
    made = Slot()
    made.recent.answer_query(RecentAnswersQuery())
    return made


def test_nothing_is_kept_before_the_first_question_nor_long_after_the_last() -> None:
    slot = Slot()
    slot.answers("before")
    assert slot.told() == []
    slot.answers("a")
    assert slot.told() == ["a"]
    slot.clock.now += module.LEASE_S + 1
    slot.answers("late")
    slot.answers("later")
    assert slot.told() == [] and slot.recent.answer_query(RecentAnswersQuery())["complete_for_s"] == 0


def test_the_newest_come_first_and_only_those_that_are_old_enough_and_not_seen_yet(slot) -> None:
    for id_ in "abcd":
        slot.answers(id_)
        slot.clock.now += 1
    assert slot.told() == ["d", "c", "b", "a"]
    assert slot.told(older_than_s=2.5) == ["b", "a"]
    assert slot.told(after=2) == ["d", "c"]
    assert slot.told(limit=1) == ["d"]


def test_requests_are_found_by_their_id_and_an_id_that_came_twice_is_marked(slot) -> None:
    for id_ in ("a", "b", "a"):
        slot.answers(id_)
    told = slot.recent.answer_query(RecentAnswersQuery(ids=["b", "a", "nobody"]))["answers"]
    assert [(each["id"], each["repeated"]) for each in told] == [("b", False), ("a", True)]


def test_no_value_of_a_row_is_told_but_the_slices_of_the_manifest_and_of_a_copy_not_even_those(slot) -> None:
    slot.answers("a", rows=2)
    slot.answers("b", copy=True)
    copy, own = slot.recent.answer_query(RecentAnswersQuery())["answers"]
    assert own["slices"] == [("Home=rent", "Age=>=30")] * 2 and "slices" not in copy
    assert set(own) == {"number", "id", "age_s", "repeated", "seconds", "scores", "decisions", "slices"}


def test_who_was_refused_or_answered_in_the_models_place_has_no_scores(slot) -> None:
    slot.answers("refused", answer=Problem(503, "The queue is full."))
    slot.answers("ruled", answer=Answer("3", "blue", "d" * 64, [0.5], ["good"], [True], "rule"))
    assert all("scores" not in each for each in slot.recent.answer_query(RecentAnswersQuery())["answers"])


def test_what_is_older_than_it_is_kept_goes_and_the_rest_is_told_to_be_complete(slot) -> None:
    slot.answers("old")
    slot.clock.now += module.KEEP_S + 1
    slot.answers("new")
    told = slot.recent.answer_query(RecentAnswersQuery())
    assert [each["id"] for each in told["answers"]] == ["new"]
    assert told["complete_for_s"] == module.KEEP_S and told["share"] == 1


def test_under_heavy_traffic_two_slots_keep_the_same_requests(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 100)
    slots = [Slot(), Slot()]
    for slot in slots:
        slot.recent.answer_query(RecentAnswersQuery())
        for number in range(350):
            slot.answers(f"r-{number}")
    kept = [slot.told(limit=1000) for slot in slots]
    share = slots[0].recent.answer_query(RecentAnswersQuery())["share"]
    assert kept[0] == kept[1] and 0 < len(kept[0]) <= 100 and share <= 0.5
    assert set(kept[0]) == {f"r-{number}" for number in range(350) if is_sampled(f"r-{number}", share)}


def test_one_answer_is_short_however_many_rows_a_request_has(slot, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_ROWS", 10)
    for id_ in "abc":
        slot.answers(id_, rows=8)
    assert slot.told() == ["c"]


class TestRoute:
    @pytest.fixture(autouse=True)
    def serving(self, stage, tmp_path: Path) -> None:
        stage("blue")
        self.app = client(tmp_path, serving_token=ADMIN, trusted_keys=render_public_pem(blessed.KEY))

    def ask(self, content: bytes, token: str = ADMIN) -> httpx.Response:
        return self.app.post("/admin/recent", content=content, headers=bearer(token))

    def test_what_was_predicted_is_told_by_its_request_id_and_a_copys_answer_too(self) -> None:
        assert self.ask(b"").json()["answers"] == []
        for id_, headers in (("r-1", {}), ("r-2", {COPY: "1"})):
            said = self.app.post(
                "/predict", json={"rows": credit.rows()[:1]}, headers={"x-request-id": id_, **headers}
            ).json()
            [told] = self.ask(b'{"ids": ["%s"]}' % id_.encode()).json()["answers"]
            assert told["scores"] == [said["predictions"][0]["probability"]] and told["seconds"] > 0

    @pytest.mark.parametrize(
        "content", [b"{", b"[]", b'{"ids": "a"}', b'{"limit": -1}', b'{"colour": "blue"}', b'{"after": "1"}']
    )
    def test_a_question_that_is_none_is_refused_in_one_sentence(self, content) -> None:
        answer = self.ask(content)
        assert answer.status_code == 422
        assert answer.json()["error"]["message"] == "Ask with after, older_than_s and limit, or with ids."

    def test_the_feedback_of_a_copy_is_taken_and_left_to_the_live_slot(self) -> None:
        outcome = {"outcomes": [{"request_id": "r-1", "label": "bad"}]}
        assert self.app.post("/feedback", json=outcome).status_code == 409  # this server keeps no log
        assert self.app.post("/feedback", json=outcome, headers={COPY: "1"}).status_code == 202

    def test_nobody_but_the_administrator_is_told_anything(self) -> None:
        assert self.ask(b"{}", "somebody-elses-token").status_code == 401
