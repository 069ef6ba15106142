"""What this slot answered last, for whoever compares two slots request by request: POST /admin/recent.

Nothing is kept until somebody asks; then every prediction of the next LEASE_S seconds is, and each further question
prolongs that. So the memory and the microseconds a request costs are only spent while a shadow is looked at, and a run
that died leaves nothing behind.

    {"after": 17, "older_than_s": 5, "limit": 200}    the newest answers after number 17 that are so old, newest first
    {"ids": ["..."]}                                  the answers to these requests

The prediction log has the same answers, and reaches its place half a minute later: too late for a look every second.
What it hides stays hidden: nothing of a row leaves the process from here but the slices of the manifest's `groups` it
belongs to, and of categories only those that the model knows.

An answer is kept for KEEP_S seconds. Where there are more than KEPT_ROWS rows in them, every second request is kept,
every fourth and so on, chosen by its id, so that two slots keep the same ones. What of the last `complete_for_s`
seconds, and of that `share` of the ids, is not here, was not answered. An id that came twice names no request: it is
marked, and is nobody's partner.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from include.feedback.core.prediction_records import BY_MODEL, is_sampled
from include.kernel.words.groups import name_slices
from include.serving.exchange import Problem
from include.serving.words.recent import RecentAnswer, RecentAnswers

if TYPE_CHECKING:
    from include.data.spec import GroupsSpec
    from include.serving.exchange import Answer, RequestContext, Row

Categories = Mapping[str, Collection[str]]
LEASE_S = 60.0
KEEP_S = 20.0
MAX_ROWS = 20_000  # with their inputs some 25 MB
LEAST_SHARE = 2.0**-20
MAX_ANSWER_ROWS = 400  # in one answer: some milliseconds of the event loop


@dataclass(slots=True)
class StoredAnswer:
    number: int
    context: RequestContext
    rows: Sequence[Row]
    answer: Answer | None
    seconds: float
    repeated: bool = False


class RecentAnswersQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    after: int = Field(0, ge=0)
    older_than_s: float = Field(0.0, ge=0)
    limit: int = Field(200, ge=0, le=1000)
    ids: list[str] | None = Field(None, max_length=1000)


class RecentAnswerBuffer:
    """Used by the event loop alone; `now` is a clock in monotonic seconds."""

    def __init__(
        self,
        groups: GroupsSpec | None,
        categories: Callable[[], Categories],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`categories`: those that the held model knows, by column."""
        self._groups, self._categories, self._now = groups, categories, now
        self._process = uuid.uuid4().hex
        self._answers: OrderedDict[str, StoredAnswer] = OrderedDict()
        self._number = self._rows = 0
        self._share, self._since, self._until = 1.0, 0.0, 0.0
        self._is_leased = False

    def append(self, context: RequestContext, rows: Sequence[Row], answer: Answer | Problem, seconds: float) -> None:
        if not self._is_leased or not is_sampled(context.id, self._share):
            return
        if self._now() > self._until:
            return self._begin(is_leased=False)
        if stored := self._answers.get(context.id):
            stored.repeated = True
            return
        self._number += 1
        self._rows += len(rows)
        own = not isinstance(answer, Problem) and answer.served_by == BY_MODEL
        self._answers[context.id] = StoredAnswer(
            self._number, context, rows, cast("Answer", answer) if own else None, seconds
        )
        self._make_room()

    def _begin(self, is_leased: bool) -> None:
        self._answers.clear()
        self._rows, self._share, self._since, self._is_leased = 0, 1.0, self._now(), is_leased

    def _make_room(self) -> None:
        too_old = self._now() - KEEP_S
        while self._answers and next(iter(self._answers.values())).context.received < too_old:
            self._rows -= len(self._answers.popitem(last=False)[1].rows)
        while self._rows > MAX_ROWS and self._share > LEAST_SHARE:
            self._share /= 2
            for id_ in [each for each in self._answers if not is_sampled(each, self._share)]:
                self._rows -= len(self._answers.pop(id_).rows)

    def answer_query(self, query: RecentAnswersQuery) -> RecentAnswers:
        now = self._now()
        if not self._is_leased or now > self._until:
            self._begin(is_leased=True)
        self._until = now + LEASE_S
        answers = self._iterate_named(query.ids) if query.ids is not None else self._iterate_newest(query, now)
        return {
            "process": self._process,
            "complete_for_s": min(now - self._since, KEEP_S),
            "share": self._share,
            "answers": [self._describe(each, now) for each in answers],
        }

    def _iterate_named(self, ids: Sequence[str]) -> Iterator[StoredAnswer]:
        return (self._answers[each] for each in ids if each in self._answers)

    def _iterate_newest(self, query: RecentAnswersQuery, now: float) -> Iterator[StoredAnswer]:
        """Of the newest `limit` that are old enough, as many as have TOLD_ROWS rows, but one at least."""
        old = (each for each in reversed(self._answers.values()) if now - each.context.received >= query.older_than_s)
        rows = 0
        for each in islice(old, query.limit):
            if each.number <= query.after or (rows and rows + len(each.rows) > MAX_ANSWER_ROWS):
                return
            rows += len(each.rows)
            yield each

    def _describe(self, stored: StoredAnswer, now: float) -> RecentAnswer:
        description = RecentAnswer(
            number=stored.number,
            id=stored.context.id,
            age_s=now - stored.context.received,
            repeated=stored.repeated,
            seconds=stored.seconds,
        )
        if answer := stored.answer:
            description["scores"], description["decisions"] = answer.probabilities, answer.decisions
            if not stored.context.copy:
                description["slices"] = self._list_slices(stored.rows)
        return description

    def _list_slices(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        spec, categories = self._groups, self._categories()
        return [name_slices(row, spec, categories) if spec else () for row in rows]
