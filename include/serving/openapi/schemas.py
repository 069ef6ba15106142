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
OPTIONAL: Json = {"type": ["object", "null"]}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}
PROBABILITY: Json = {"type": "number", "minimum": 0, "maximum": 1}
NUMBER: Json = {"type": "number"}
PREDICTION: dict[str, Json] = {"probability": PROBABILITY, "label": TEXT, "decision": FLAG}
FINITE: Json = {"type": "number", "description": "finite in 64 bits"}  # a maximum of 309 digits helps no reader


def build_schemas(
    columns: Sequence[Column], explained: Sequence[Column], labels: Sequence[str], max_rows: int
) -> dict[str, Json]:
    """The document's components, by name. `explained` are those of the columns that the model needs."""
    rows = {"type": "array", "items": build_ref("Row"), "minItems": 1, "maxItems": max_rows}
    return {
        "Row": _build_row(columns),
        "PredictRequest": {
            "oneOf": [build_closed_object({"rows": rows}), build_closed_object({"row": build_ref("Row")})]
        },
        "PredictAnswer": _build_predict_answer(),
        "ExplainAnswer": _build_explain_answer(explained),
        "FeedbackRequest": _build_feedback(labels, max_rows),
        "InvocationsRequest": _build_invocations(columns, rows, max_rows),
        "InvocationsAnswer": build_open_object({"predictions": build_array(PROBABILITY)}, served_by=TEXT),
        "InferRequest": _build_infer_request(columns, max_rows),
        "InferAnswer": _build_infer_answer(),
        "Refusal": build_closed_object({"error": build_closed_object({"message": TEXT}, row=COUNT, field=TEXT)}),
        "MlflowRefusal": build_closed_object({"error_code": TEXT, "message": TEXT}, row=COUNT, field=TEXT),
        "OpenInferenceRefusal": build_closed_object({"error": TEXT}),
    }


def build_row_example(columns: Sequence[Column]) -> Json:
    """A valid row of nobody: a 1 for a number, a value the training knew for a category."""
    return {
        column.name: 1.0 if column.kind == "number" else next(iter(column.categories), "text") for column in columns
    }


def build_infer_example(columns: Sequence[Column]) -> Json:
    """The same row as tensors."""
    datatypes = {column.name: "FP64" if column.kind == "number" else "BYTES" for column in columns}
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": datatypes[name], "data": [value]}
            for name, value in build_row_example(columns).items()
        ]
    }


def build_ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def build_open_object(required: Mapping[str, Json], **optional: Json) -> Json:
    """An object that may hold more than what is named."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def build_closed_object(required: Mapping[str, Json], **optional: Json) -> Json:
    """An object that may hold nothing but what is named."""
    return {**build_open_object(required, **optional), "additionalProperties": False}


def build_array(items: Json) -> Json:
    return {"type": "array", "items": items, "minItems": 1}


def _build_value(column: Column) -> Json:
    schema = FINITE if column.kind == "number" else TEXT
    return {**schema, "type": [schema["type"], "null"]} if column.nullable else schema


def _build_row(columns: Sequence[Column]) -> Json:
    required = {column.name: _build_value(column) for column in columns if not column.nullable}
    optional = {column.name: _build_value(column) for column in columns if column.nullable}
    return {**build_closed_object(required, **optional), "description": "What is left out is missing."}


def _build_predict_answer() -> Json:
    return build_open_object({**_build_identity(), "predictions": build_array(build_closed_object(PREDICTION))})


def _build_explain_answer(columns: Sequence[Column]) -> Json:
    """`space` is what base_value and contributions add up to (see include/model/explanation/attribution.py)."""
    direction = {"enum": ["raised", "lowered"]}
    reason = build_closed_object(
        {"code": TEXT, "column": TEXT, "direction": direction, "text": TEXT, "contribution": NUMBER}
    )
    reasons = {"type": "array", "items": reason}
    explained = build_closed_object(
        {
            **PREDICTION,
            "base_value": NUMBER,
            "contributions": build_closed_object({column.name: NUMBER for column in columns}),
            "reasons": reasons,
            "mitigating": reasons,
        }
    )
    space = {"enum": ["log_odds", "probability", "score_log_odds", "score"]}
    return build_open_object({**_build_identity(), "space": space, "predictions": build_array(explained)})


def _build_identity() -> dict[str, Json]:
    by = {"enum": [*get_args(ServedBy)], "description": "the model, or what answered in its place"}
    return {"version": TEXT, "slot": {"enum": [*COLOURS]}, "served_by": by}


def _build_feedback(labels: Sequence[str], max_rows: int) -> Json:
    identifier = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "description": "x-request-id of the answer"}
    row = {
        **COUNT,
        "type": ["integer", "null"],
        "maximum": max_rows - 1,
        "description": "the row's place in its request; 0 if left out",
    }
    outcome = build_closed_object({"request_id": identifier, "label": {"enum": [*labels]}}, row=row, time=_TIME)
    return {
        "oneOf": [
            build_closed_object({"outcomes": {**build_array(outcome), "maxItems": max_rows}}),
            build_closed_object({"outcome": outcome}),
        ]
    }


_TIME: Json = {
    "type": ["string", "null"],
    "format": "date-time",
    "description": "when it was known; not in the future",
}


def _build_invocations(columns: Sequence[Column], rows: Json, max_rows: int) -> Json:
    names = {"type": "array", "items": {"enum": [column.name for column in columns]}, "uniqueItems": True}
    data = {**build_array({"type": "array"}), "maxItems": max_rows}
    lists = {column.name: {**build_array(_build_value(column)), "maxItems": max_rows} for column in columns}
    formats = {
        "dataframe_split": build_closed_object({"columns": names, "data": data}, index={"type": "array"}),
        "dataframe_records": rows,
        "instances": rows,
        "inputs": {"oneOf": [rows, {**build_closed_object({}, **lists), "minProperties": 1}]},
    }
    params = {"type": ["object", "null"], "maxProperties": 0}
    return {"oneOf": [build_closed_object({name: formats[name]}, params=params) for name in mlflow_scoring.FORMATS]}


def _build_infer_request(columns: Sequence[Column], max_rows: int) -> Json:
    rows = {"type": "integer", "minimum": 1, "maximum": max_rows}
    shape = {"type": "array", "prefixItems": [rows, {"const": 1}], "minItems": 1, "maxItems": 2}
    datatype = {"enum": [*tensors.NUMBERS, "BYTES"]}
    name = {"enum": [column.name for column in columns]}
    tensor = build_closed_object(
        {"name": name, "shape": shape, "datatype": datatype}, parameters=OPTIONAL, data={"type": ["array", "null"]}
    )
    output = build_closed_object({"name": {"enum": list(open_inference.OUTPUTS)}}, parameters=OPTIONAL)
    identifier = {"type": ["string", "null"], "maxLength": open_inference.LONGEST_ID}
    outputs = {"type": ["array", "null"], "items": output, "maxItems": len(open_inference.OUTPUTS)}
    held = {"type": ["string", "null"], "description": "if there, what the path names and the server holds"}
    return build_closed_object(
        {"inputs": build_array(tensor)},
        id=identifier,
        parameters=OPTIONAL,
        outputs=outputs,
        model_name=held,
        model_version=held,
    )


def _build_infer_answer() -> Json:
    shape = {"type": "array", "items": COUNT}
    tensor = build_open_object({"name": TEXT, "datatype": TEXT, "shape": shape}, data={"type": "array"}, parameters=ANY)
    required = {"model_name": TEXT, "model_version": TEXT, "parameters": ANY, "outputs": build_array(tensor)}
    return build_open_object(required, id=TEXT)
