"""/predict-and-explain: what /predict answers, and which columns moved each probability.

The probability comes from the scorer, as every probability does; the contributions must add up to it. Without an
explanation there is no answer, and no half of one: who only wants the prediction asks /predict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from pydantic_core import to_json

from include.serving.endpoints.prediction import Endpoint
from include.serving.exchange import Answer, ParsedRequest, Problem, RenderedResponse, RequestContext, Row
from include.serving.explain import reason_codes
from include.serving.explain.explaining import ExplanationService
from include.serving.predict.scoring import MAX_INLINE_ROWS
from include.serving.protocols import native
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.wire import respond

if TYPE_CHECKING:
    from include.model.explanation.attribution import RowExplanation


class ExplainEndpoint(Endpoint):
    answers_at_once = False  # another process explains

    def __init__(self, service: Service, explanation_service: ExplanationService) -> None:
        super().__init__(service, native)
        self._explanation_service = explanation_service
        self._sign = 1 if service.spec.explain.adverse == "positive" else -1

    async def _score(self, slot: Loaded, rows: Sequence[Row], context: RequestContext) -> Answer | Problem:
        """In no batch where it can be: the explanation takes ten times as long, and each wait of a task adds to it."""
        scorer = self._service.scorer
        small = len(rows) <= MAX_INLINE_ROWS and scorer.is_free(slot, 1)
        answer = scorer.score_now(slot, [rows])[0] if small else None
        return answer or await super()._score(slot, rows, context)

    async def _conclude(
        self, slot: Loaded, context: RequestContext, parsed: ParsedRequest, answer: Answer | Problem
    ) -> Response:
        if isinstance(answer, Problem):
            return self._record_and_respond(context, parsed, answer, answer)
        explanations = await self._explanation_service.explain(slot, parsed.rows, answer, context.deadline)
        if not isinstance(explanations, Problem):  # else nobody got the scores
            self._count(slot, answer, parsed.rows)
        return self._record_and_respond(context, parsed, answer, explanations)

    async def _parse(self, request: Request, headers: Mapping[str, str], slot: Loaded) -> ParsedRequest | Problem:
        parsed, max_rows = await super()._parse(request, headers, slot), self._service.spec.explain.max_rows
        if isinstance(parsed, ParsedRequest) and len(parsed.rows) > max_rows:
            return Problem(422, f"A request may have {max_rows} rows at most explained; split it.", field="rows")
        return parsed

    def _record_and_respond(
        self,
        context: RequestContext,
        parsed: ParsedRequest,
        answer: Answer | Problem,
        explanations: Sequence[RowExplanation] | Problem,
    ) -> Response:
        """The log holds what was answered: a prediction whose explanation is withheld was not answered."""
        problem = explanations if isinstance(explanations, Problem) else None
        status = problem.status if problem else 200
        self._service.record(context, parsed.rows, problem or answer, status, time.monotonic() - context.received)
        if isinstance(explanations, Problem) or isinstance(answer, Problem):
            assert problem
            return self.render_refusal(problem)
        return respond(RenderedResponse(to_json(self._build_document(answer, explanations))))

    def _build_document(self, answer: Answer, explanations: Sequence[RowExplanation]) -> dict[str, Any]:
        identity = {"version": answer.version, "slot": answer.slot, "served_by": answer.served_by}
        predictions = [
            {"probability": probability, "label": label, "decision": decision, **self._build_explanation(explained)}
            for probability, label, decision, explained in zip(
                answer.probabilities, answer.labels, answer.decisions, explanations, strict=True
            )
        ]
        return {**identity, "space": explanations[0].space, "predictions": predictions}

    def _build_explanation(self, explained: RowExplanation) -> dict[str, Any]:
        spec = self._service.spec
        reasons = reason_codes.find(explained.contributions, spec.reasons, spec.explain.top_reasons, self._sign)
        # to_json takes dataclasses as they are; asdict would copy two dozen reasons deeply
        return {"base_value": explained.base, "contributions": explained.contributions, **vars(reasons)}
