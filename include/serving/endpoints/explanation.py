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
from include.serving.exchange import Answer, Asked, Parsed, Problem, Rendered, Row
from include.serving.explain import reason_codes
from include.serving.explain.explaining import Explaining
from include.serving.predict.scoring import LARGE
from include.serving.protocols import native
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.wire import respond

if TYPE_CHECKING:
    from include.model.explanation.attribution import Explained


class ExplainEndpoint(Endpoint):
    answers_at_once = False  # another process explains

    def __init__(self, service: Service, explaining: Explaining) -> None:
        super().__init__(service, native)
        self._explaining = explaining
        self._sign = 1 if service.spec.explain.adverse == "positive" else -1

    async def _scored(self, slot: Loaded, rows: Sequence[Row], asked: Asked) -> Answer | Problem:
        """In no batch where it can be: the explanation takes ten times as long, and each wait of a task adds to it."""
        scorer = self._service.scorer
        small = len(rows) <= LARGE and scorer.is_free(slot, 1)
        answer = scorer.at_once(slot, [rows])[0] if small else None
        return answer or await super()._scored(slot, rows, asked)

    async def _concluded(self, slot: Loaded, asked: Asked, parsed: Parsed, answer: Answer | Problem) -> Response:
        if isinstance(answer, Problem):
            return self._recorded(asked, parsed, answer, answer)
        told = await self._explaining.explain(slot, parsed.rows, answer, asked.deadline)
        if not isinstance(told, Problem):  # else nobody got the scores
            self._counted(slot, answer, parsed.rows)
        return self._recorded(asked, parsed, answer, told)

    async def _parsed(self, request: Request, headers: Mapping[str, str], slot: Loaded) -> Parsed | Problem:
        parsed, most = await super()._parsed(request, headers, slot), self._service.spec.explain.max_rows
        if isinstance(parsed, Parsed) and len(parsed.rows) > most:
            return Problem(422, f"A request may have {most} rows at most explained; split it.", field="rows")
        return parsed

    def _recorded(
        self, asked: Asked, parsed: Parsed, answer: Answer | Problem, told: Sequence[Explained] | Problem
    ) -> Response:
        """The log holds what was answered: a prediction whose explanation is withheld was not answered."""
        problem = told if isinstance(told, Problem) else None
        status = problem.status if problem else 200
        self._service.record(asked, parsed.rows, problem or answer, status, time.monotonic() - asked.received)
        if isinstance(told, Problem) or isinstance(answer, Problem):
            assert problem
            return self.refusal(problem)
        return respond(Rendered(to_json(self._document(answer, told))))

    def _document(self, answer: Answer, told: Sequence[Explained]) -> dict[str, Any]:
        who = {"version": answer.version, "slot": answer.slot, "served_by": answer.served_by}
        predictions = [
            {"probability": probability, "label": label, "decision": decision, **self._explanation(explained)}
            for probability, label, decision, explained in zip(
                answer.probabilities, answer.labels, answer.decisions, told, strict=True
            )
        ]
        return {**who, "space": told[0].space, "predictions": predictions}

    def _explanation(self, explained: Explained) -> dict[str, Any]:
        spec = self._service.spec
        found = reason_codes.find(explained.contributions, spec.reasons, spec.explain.top_reasons, self._sign)
        # to_json takes dataclasses as they are; asdict would copy two dozen reasons deeply
        return {"base_value": explained.base, "contributions": explained.contributions, **vars(found)}
