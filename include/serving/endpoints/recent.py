"""POST /admin/recent: what this slot answered last, for whoever compares two slots; see recent_answers."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from include.serving.exchange import Problem
from include.serving.log.recent_answers import Question, Recent
from include.serving.protocols import native
from include.serving.wire import headers_of, read_body, refuse

LONGEST_QUESTION = 1 << 17  # bytes
NO_QUESTION = Problem(422, "Ask with after, older_than_s and limit, or with ids.")


class RecentRoute:
    """`await route(request)`; for administrators, by the table of routes."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent

    async def __call__(self, request: Request) -> Response:
        body = await read_body(request, headers_of(request.scope["headers"]), LONGEST_QUESTION)
        if isinstance(body, Problem):
            return refuse(native.refuse(body), body)
        try:
            question = Question.model_validate_json(bytes(body) or b"{}")
        except ValidationError:
            return refuse(native.refuse(NO_QUESTION), NO_QUESTION)
        return Response(to_json(self._recent.told(question)), media_type="application/json")
