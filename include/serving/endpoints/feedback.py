"""What became of a prediction: POST /feedback {"outcomes": [{request_id, row, label, time}]}.

As strict as /predict, and as silent about what was sent. The request id is the one in the answer's header
`x-request-id`. `row` counts from 0 and may be left out, or null, for a request of one row; `time` says when the
outcome was known, with its offset, and may be left out too. An outcome sent again replaces the one before.

The answer is 202: outcomes wait in the same kind of buffer as predictions, and reach their place a little later. Unlike
predictions they are refused when there is no room, since whoever sends them can wait and send them again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from include.serving.exchange import Outcome, Problem
from include.serving.protocols.request_body import check_headers, check_row_count, find_one_key, parse_json
from include.serving.slot.contents import Loaded
from include.serving.wire import decode_headers, read_body
from include.serving.words.headers import COPY

if TYPE_CHECKING:
    from include.serving.service import Service

FIELDS = frozenset({"request_id", "row", "label", "time"})
REQUEST_ID = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
MAX_CLOCK_SKEW = timedelta(minutes=5)  # what clocks may differ by


def parse_outcomes(body: bytes, labels: Collection[str], max_rows: int, now: datetime) -> list[Outcome] | Problem:
    """Validated outcomes in the order they were sent, or the first problem. `labels` are the model's two classes."""
    payload = parse_json(body)
    if isinstance(payload, Problem):
        return payload
    name = find_one_key(payload, ("outcomes", "outcome"))
    if name is None:
        return Problem(422, 'The body must be {"outcomes": [...]} or {"outcome": {...}} and nothing else.')
    items = payload[name] if name == "outcomes" else [payload[name]]
    if not isinstance(items, list) or not items:
        return Problem(422, "outcomes must be a list with at least one outcome.", field="outcomes")
    return check_row_count(len(items), "outcomes", max_rows) or _check_outcomes(items, labels, max_rows, now)


def _check_outcomes(items: list[Any], labels: Collection[str], max_rows: int, now: datetime) -> list[Outcome] | Problem:
    outcomes = []
    for index, item in enumerate(items):
        fault = _find_fault(item, labels, max_rows, now)
        if fault:
            return Problem(422, fault[1], index, fault[0])
        outcomes.append(
            Outcome(item["request_id"], _read_row(item), str(item["label"]), _parse_micros(item.get("time")))
        )
    return outcomes


def _find_fault(item: Any, labels: Collection[str], max_rows: int, now: datetime) -> tuple[str | None, str] | None:
    """The field that is wrong, if it can be named, and what it must be."""
    if not isinstance(item, dict):
        return None, "An outcome must be an object with request_id and label, and row and time if you like."
    if not item.keys() <= FIELDS:
        return None, "An outcome has no other fields than request_id, row, label and time."
    request_id, row, label = item.get("request_id"), _read_row(item), item.get("label")
    if not isinstance(request_id, str) or not REQUEST_ID.match(request_id):
        return (
            "request_id",
            "request_id must be the x-request-id of the answer.",
        )
    if type(row) is not int or not 0 <= row < max_rows:
        return "row", f"row must be a whole number from 0 to {max_rows - 1}: the row's place in its request."
    if type(label) not in (str, int) or str(label) not in labels:
        return "label", f"label must be one of {', '.join(labels)}."
    return _find_time_fault(item.get("time"), now)


def _read_row(item: dict[str, Any]) -> Any:
    return 0 if item.get("row") is None else item["row"]


def _find_time_fault(text: Any, now: datetime) -> tuple[str, str] | None:
    if text is None:
        return None
    moment = _parse_time(text)
    if moment is None:
        return "time", "time must be an ISO 8601 text with its offset, such as 2026-08-01T12:00:00Z, or be left out."
    return ("time", "time must not lie in the future.") if moment > now + MAX_CLOCK_SKEW else None


def _parse_time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _parse_micros(text: Any) -> int | None:
    moment = _parse_time(text)
    return None if moment is None else round(moment.timestamp() * 1e6)


def add_feedback(framework: FastAPI, service: Service) -> None:
    async def receive_outcomes(request: Request) -> Response:
        """Outcomes of predictions, by the request id of the answer."""
        outcomes = await _read_outcomes(request, service)
        if isinstance(outcomes, Problem):
            return _refuse(outcomes)
        if COPY in request.headers:  # the live slot keeps it
            return JSONResponse({"accepted": len(outcomes)}, 202)
        if service.log is None:
            return _refuse(Problem(409, "This server keeps no prediction log; see serving.log and EVERGREEN_STORE."))
        if not service.log.offer_outcomes(outcomes):
            return _refuse(Problem(503, "The log has no room now; send the outcomes again later."))
        return JSONResponse({"accepted": len(outcomes)}, 202)

    framework.add_api_route("/feedback", receive_outcomes, methods=["POST"], response_model=None, status_code=202)


async def _read_outcomes(request: Request, service: Service) -> list[Outcome] | Problem:
    slot, settings = service.current_model.slot, service.settings
    if not isinstance(slot, Loaded):
        return Problem(503, slot.why)
    problem = check_headers(request.headers, ("application/json",))
    body = problem or await read_body(request, decode_headers(request.scope["headers"]), settings.max_body_bytes)
    if isinstance(body, Problem):
        return body
    labels = (slot.model.meta.positive, slot.model.meta.negative)
    return parse_outcomes(body, labels, settings.max_rows, datetime.now(UTC))


def _refuse(problem: Problem) -> Response:
    waits = {"retry-after": "5"} if problem.status == 503 else None
    return JSONResponse(problem.build_document(), problem.status, waits)
