"""POST /admin/recent: what this slot answered last, for whoever compares two slots; see recent_answers."""

from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from include.serving.exchange import Problem
from include.serving.log.recent_answers import RecentAnswerBuffer, RecentAnswersQuery
from include.serving.protocols import native
from include.serving.wire import decode_headers, read_body, refuse

MAX_QUERY_BYTES = 1 << 17  # bytes
INVALID_QUERY = Problem(422, "Ask with after, older_than_s and limit, or with ids.")


class RecentAnswersRoute:
    """`await route(request)`; for administrators, by the table of routes."""

    def __init__(self, recent_answers: RecentAnswerBuffer) -> None:
        self._recent_answers = recent_answers

    async def __call__(self, request: Request) -> Response:
        body = await read_body(request, decode_headers(request.scope["headers"]), MAX_QUERY_BYTES)
        if isinstance(body, Problem):
            return refuse(native.refuse(body), body)
        try:
            query = RecentAnswersQuery.model_validate_json(bytes(body) or b"{}")
        except ValidationError:
            return refuse(native.refuse(INVALID_QUERY), INVALID_QUERY)
        return Response(to_json(self._recent_answers.answer_query(query)), media_type="application/json")
