"""Our own dialect: {"rows": [{column: value}]} in, version, slot and one prediction for each row out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic_core import to_json

from include.serving.exchange import ParsedRequest, Problem, RenderedResponse
from include.serving.protocols.request_body import check_headers, parse_rows
from include.serving.slot.input_schema import InputSchema

if TYPE_CHECKING:
    from include.serving.exchange import Answer


def parse(body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int) -> ParsedRequest | Problem:
    rows = check_headers(headers, ("application/json",)) or parse_rows(body, schema, max_rows)
    return rows if isinstance(rows, Problem) else ParsedRequest(rows)


def render(answer: Answer, parsed: ParsedRequest) -> RenderedResponse:
    predictions = [
        {"probability": probability, "label": label, "decision": decision}
        for probability, label, decision in zip(answer.probabilities, answer.labels, answer.decisions, strict=True)
    ]
    identity = {"version": answer.version, "slot": answer.slot, "served_by": answer.served_by}
    return RenderedResponse(to_json({**identity, "predictions": predictions}))


def refuse(problem: Problem) -> RenderedResponse:
    return RenderedResponse(to_json(problem.build_document()))
