"""A staged release is asked its golden rows alone and in other company: that is how clients ask."""

from typing import Any

import httpx
import pytest

from include.release.core.rollout import DesiredState, Release
from include.release.service.driver import ReleaseDriver

GOLDEN = [{"row": {"Age": float(age)}, "probability": (age - 20) / 20} for age in range(20, 30)]
WANTED = DesiredState(Release("2", "d"), 7, "a test", "to see")


class Target:
    """A slot whose answer to a row may rest on the rows beside it."""

    def __init__(self, looks_beside: bool) -> None:
        self.looks_beside, self.asked = looks_beside, set[int]()

    def read_golden_rows(self, digest: str) -> list[dict[str, Any]]:
        return GOLDEN

    def fetch_predictions(self, colour: str, rows: list[dict[str, Any]]) -> httpx.Response:
        self.asked.add(len(rows))
        youngest = min(row["Age"] for row in rows) if self.looks_beside else 20
        found = [{"probability": (row["Age"] - youngest) / 20} for row in rows]
        return httpx.Response(200, json={"version": "2", "predictions": found})


@pytest.mark.parametrize("looks_beside", [False, True])
def test_a_release_whose_answers_rest_on_the_rows_beside_does_not_go_live(looks_beside: bool, small) -> None:
    target = Target(looks_beside)
    driver = ReleaseDriver(target, None, small(), [])  # type: ignore[arg-type]
    problem = driver._run_smoke_requests("green", WANTED)
    if looks_beside:
        assert "golden rows are missed by" in str(problem) and "when they are asked alone" in str(problem)
    else:
        assert problem is None and 1 in target.asked and len(target.asked) > 2
