"""JSON schemas of what is sent and answered, for the columns of the model that is held.

They say as much as JSON schema can: types, nulls, names, limits. What it cannot say, such as that a tensor's data has
as many values as its shape tells, the server still checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from include.feedback.core.prediction_records import ServedBy
from include.kernel.words.colours import COLOURS
from include.serving.protocols import mlflow_scoring, open_inference, tensors

if TYPE_CHECKING:
    from include.model.schema import Column

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
ANY: Json = {"type": "object"}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}
PROBABILITY: Json = {"type": "number", "minimum": 0, "maximum": 1}
NUMBER: Json = {"type": "number"}
PREDICTION: dict[str, Json] = {"probability": PROBABILITY, "label": TEXT, "decision": FLAG}
FINITE: Json = {"type": "number", "description": "finite in 64 bits"}  # a maximum of 309 digits helps no reader


def schemas(columns: Sequence[Column], labels: Sequence[str], max_rows: int) -> dict[str, Json]:
    """The document's components, by name."""
    rows = {"type": "array", "items": ref("Row"), "minItems": 1, "maxItems": max_rows}
    return {
        "Row": _row(columns),
        "PredictRequest": {"oneOf": [closed({"rows": rows}), closed({"row": ref("Row")})]},
        "PredictAnswer": _predict_answer(),
        "ExplainAnswer": _explain_answer(columns),
        "FeedbackRequest": _feedback(labels, max_rows),
        "InvocationsRequest": _invocations(columns, rows, max_rows),
        "InvocationsAnswer": opened({"predictions": many(PROBABILITY)}, served_by=TEXT),
        "InferRequest": _infer_request(columns, max_rows),
        "InferAnswer": _infer_answer(),
        "Refusal": closed({"error": closed({"message": TEXT}, row=COUNT, field=TEXT)}),
        "MlflowRefusal": closed({"error_code": TEXT, "message": TEXT}, row=COUNT, field=TEXT),
        "OpenInferenceRefusal": closed({"error": TEXT}),
    }


def row_example(columns: Sequence[Column]) -> Json:
    """A valid row of nobody: a 1 for a number, a value the training knew for a category."""
    return {
        column.name: 1.0 if column.kind == "number" else next(iter(column.categories), "text") for column in columns
    }


def infer_example(columns: Sequence[Column]) -> Json:
    """The same row as tensors."""
    datatypes = {column.name: "FP64" if column.kind == "number" else "BYTES" for column in columns}
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": datatypes[name], "data": [value]}
            for name, value in row_example(columns).items()
        ]
    }


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def opened(required: Mapping[str, Json], **optional: Json) -> Json:
    """An object that may hold more than what is named."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def closed(required: Mapping[str, Json], **optional: Json) -> Json:
    """An object that may hold nothing but what is named."""
    return {**opened(required, **optional), "additionalProperties": False}


def many(items: Json) -> Json:
    return {"type": "array", "items": items, "minItems": 1}


def _value(column: Column) -> Json:
    known = FINITE if column.kind == "number" else TEXT
    return {**known, "type": [known["type"], "null"]} if column.nullable else known


def _row(columns: Sequence[Column]) -> Json:
    required = {column.name: _value(column) for column in columns if not column.nullable}
    optional = {column.name: _value(column) for column in columns if column.nullable}
    return {**closed(required, **optional), "description": "What is left out is missing."}


def _predict_answer() -> Json:
    return opened({**_who(), "predictions": many(closed(PREDICTION))})


def _explain_answer(columns: Sequence[Column]) -> Json:
    """`space` is what base_value and contributions add up to (see include/model/explanation/attribution.py)."""
    direction = {"enum": ["raised", "lowered"]}
    reason = closed({"code": TEXT, "column": TEXT, "direction": direction, "text": TEXT, "contribution": NUMBER})
    reasons = {"type": "array", "items": reason}
    explained = closed(
        {
            **PREDICTION,
            "base_value": NUMBER,
            "contributions": closed({column.name: NUMBER for column in columns}),
            "reasons": reasons,
            "mitigating": reasons,
        }
    )
    space = {"enum": ["log_odds", "probability", "score_log_odds", "score"]}
    return opened({**_who(), "space": space, "predictions": many(explained)})


def _who() -> dict[str, Json]:
    by = {"enum": [*get_args(ServedBy)], "description": "the model, or what answered in its place"}
    return {"version": TEXT, "slot": {"enum": [*COLOURS]}, "served_by": by}


def _feedback(labels: Sequence[str], max_rows: int) -> Json:
    identifier = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "description": "x-request-id of the answer"}
    row = {**COUNT, "maximum": max_rows - 1, "description": "the row's place in its request; 0 if left out"}
    outcome = closed({"request_id": identifier, "label": {"enum": [*labels]}}, row=row, time=_MOMENT)
    return {"oneOf": [closed({"outcomes": {**many(outcome), "maxItems": max_rows}}), closed({"outcome": outcome})]}


_MOMENT: Json = {
    "type": ["string", "null"],
    "format": "date-time",
    "description": "when it was known; not in the future",
}


def _invocations(columns: Sequence[Column], rows: Json, max_rows: int) -> Json:
    names = {"type": "array", "items": {"enum": [column.name for column in columns]}, "uniqueItems": True}
    data = {**many({"type": "array"}), "maxItems": max_rows}
    lists = {column.name: {**many(_value(column)), "maxItems": max_rows} for column in columns}
    formats = {
        "dataframe_split": closed({"columns": names, "data": data}, index={"type": "array"}),
        "dataframe_records": rows,
        "instances": rows,
        "inputs": {"oneOf": [rows, {**closed({}, **lists), "minProperties": 1}]},
    }
    params = {"type": ["object", "null"], "maxProperties": 0}
    return {"oneOf": [closed({name: formats[name]}, params=params) for name in mlflow_scoring.FORMATS]}


def _infer_request(columns: Sequence[Column], max_rows: int) -> Json:
    rows = {"type": "integer", "minimum": 1, "maximum": max_rows}
    shape = {"type": "array", "prefixItems": [rows, {"const": 1}], "minItems": 1, "maxItems": 2}
    datatype = {"enum": [*tensors.NUMBERS, "BYTES"]}
    name = {"enum": [column.name for column in columns]}
    tensor = closed({"name": name, "shape": shape, "datatype": datatype}, parameters=ANY, data={"type": "array"})
    output = opened({"name": {"enum": list(open_inference.OUTPUTS)}}, parameters=ANY)
    identifier = {"type": "string", "maxLength": open_inference.LONGEST_ID}
    outputs = {"type": "array", "items": output, "maxItems": len(open_inference.OUTPUTS)}
    echoed = {"model_name": TEXT, "model_version": TEXT}
    return closed({"inputs": many(tensor)}, id=identifier, parameters=ANY, outputs=outputs, **echoed)


def _infer_answer() -> Json:
    shape = {"type": "array", "items": COUNT}
    tensor = opened({"name": TEXT, "datatype": TEXT, "shape": shape}, data={"type": "array"}, parameters=ANY)
    told = {"model_name": TEXT, "model_version": TEXT, "parameters": ANY, "outputs": many(tensor)}
    return opened(told, id=TEXT)
