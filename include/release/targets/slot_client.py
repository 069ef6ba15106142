"""What is asked of one slot over HTTP, the same on every target."""

from typing import Any

import httpx

from include.kernel.errors import AccessRefused
from include.kernel.words.colours import Colour
from include.serving.words.headers import COPY
from include.serving.words.recent import PATH, RecentAnswers, RecentQuery
from include.serving.words.slot_metrics import PREDICT


def fetch_recent_answers(
    http: httpx.Client, base_url: str, colour: Colour, question: RecentQuery
) -> RecentAnswers | None:
    """What a slot answered last, as include.serving.log.recent_answers tells it; None when it cannot be asked.

    Raises `AccessRefused` when the slot knows another serving token, or none.
    """
    try:
        answer = http.post(f"{base_url}{PATH}", json=question)
    except httpx.HTTPError:
        return None
    if answer.status_code in (401, 403):
        raise AccessRefused(
            f"Slot {colour} does not tell what it answered last ({answer.status_code}): a shadow needs the same "
            "EVERGREEN_SERVING_TOKEN here and at the slots, and EVERGREEN_ADMIN_FROM=anywhere at slots of another "
            "machine; set them, or release.shadow.enabled: false."
        )
    answers: RecentAnswers | None = answer.json() if answer.status_code == 200 else None
    return answers


def fetch_predictions(
    http: httpx.Client, base_url: str, rows: list[dict[str, Any]], *, as_client: bool
) -> httpx.Response:
    """Predictions for `rows`. Unless asked as a client does, the answer counts as a copy's and stands in no log."""
    return http.post(f"{base_url}{PREDICT}", json={"rows": rows}, headers=None if as_client else {COPY: "1"})
