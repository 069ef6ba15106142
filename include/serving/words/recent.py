"""The form of POST /admin/recent: what a slot tells of its last answers, and what a shadow asks. The type checker holds
both sides to it."""

from typing import Final, NotRequired, TypedDict

PATH: Final = "/admin/recent"


class RecentAnswer(TypedDict):
    """One request. `scores` and `decisions` are there when the model answered it, `slices` when it was no copy."""

    number: int
    id: str
    age_s: float
    repeated: bool
    seconds: float
    scores: NotRequired[list[float]]
    decisions: NotRequired[list[bool]]
    slices: NotRequired[list[tuple[str, ...]]]


class RecentAnswers(TypedDict):
    """Of the last `complete_for_s` seconds and that `share` of the ids, what is not here was not answered."""

    process: str
    complete_for_s: float
    share: float
    answers: list[RecentAnswer]


class RecentQuery(TypedDict, total=False):
    after: int
    older_than_s: float
    limit: int
    ids: list[str]
