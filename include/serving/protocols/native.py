"""Our own dialect: {"rows": [{column: value}]} in, version, slot and one prediction for each row out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic_core import to_json

from include.serving.exchange import Parsed, Problem, Rendered
from include.serving.protocols.request_body import rows_of, wrong_form
from include.serving.slot.input_schema import InputSchema

if TYPE_CHECKING:
    from include.serving.exchange import Answer


def parse(body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int) -> Parsed | Problem:
    rows = wrong_form(headers, ("application/json",)) or rows_of(body, schema, max_rows)
    return rows if isinstance(rows, Problem) else Parsed(rows)


def render(answer: Answer, parsed: Parsed) -> Rendered:
    predictions = [
        {"probability": probability, "label": label, "decision": decision}
        for probability, label, decision in zip(answer.probabilities, answer.labels, answer.decisions, strict=True)
    ]
    told = {"version": answer.version, "slot": answer.slot, "served_by": answer.served_by}
    return Rendered(to_json({**told, "predictions": predictions}))


def refuse(problem: Problem) -> Rendered:
    return Rendered(to_json(problem.document()))
