"""The OpenAPI document of this server, for the model it holds: its columns as a JSON schema, its routes, its refusals.

Written by hand and not by the framework: what a route reads is decided by the held model, not by a Python type, and a
body is parsed past the framework. Tests hold the document to the routes there are and, by schemathesis, to what they
answer. The examples are made from the columns alone; they are rows of nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.serving import VERSION
from include.serving.openapi.schemas import (
    ANY,
    COUNT,
    TEXT,
    Json,
    build_infer_example,
    build_open_object,
    build_ref,
    build_row_example,
    build_schemas,
)
from include.serving.routes import get_access

if TYPE_CHECKING:
    from include.model.schema import Column
    from include.serving.slot.contents import Loaded

JSON, CSV, OCTETS = "application/json", "text/csv", "application/octet-stream"
STATUS_DESCRIPTIONS = {
    400: "The body is no JSON, no CSV or no UTF-8, or holds a key twice.",
    401: "A token is needed, and none that is known was sent.",
    403: "The route is for this machine and the serving token alone.",
    404: "The server holds another model or version.",
    409: "This server keeps no prediction log.",
    413: "The body is larger than this server takes.",
    415: "The body has another type, or is compressed.",
    422: "A row or a value is not as the model needs it; the answer names row and field.",
    429: "The token asks more often than it may; Retry-After says when to come again.",
    500: "The server failed on this request; its log has the reason.",
    503: "No model is ready, or too much is waiting; Retry-After may say when to come again.",
    504: "The answer was not there in time.",
}
PREDICT_STATUSES = (400, 413, 415, 422, 500, 503, 504)
REFUSALS = {"/v2": "OpenInferenceRefusal", "/invocations": "MlflowRefusal"}
MODEL = "/v2/models/{name}"


def build_openapi(slot: Loaded | None, max_rows: int, tokens: bool = False) -> Json:
    """`slot` None: a server without a model, whose columns are not known. `tokens`: whether clients need one."""
    columns, explained = (tuple(slot.inputs.columns.values()), slot.model.meta.columns) if slot else ((), ())
    labels = (slot.model.meta.positive, slot.model.meta.negative) if slot else ()
    name, version = (slot.model.meta.name, slot.file.version) if slot else ("model", "none")
    paths = {
        **_build_own_paths(columns, labels),
        **_build_mlflow_paths(columns),
        **_build_open_inference_paths(columns, name, version),
    }
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen model server", "version": VERSION, "description": _describe_slot(slot)},
        "paths": {path: _add_security(path, item, tokens) for path, item in paths.items()},
        "components": {
            "schemas": build_schemas(columns, explained, labels, max_rows),
            "securitySchemes": {"token": bearer},
        },
    }


def _describe_slot(slot: Loaded | None) -> str:
    if slot is None:
        return "No model is held now; its columns are not known until one is."
    meta = slot.model.meta
    return f"Holds version {slot.file.version} of {meta.name}, which tells {meta.positive!r} from {meta.negative!r}."


def _add_security(path: str, item: Json, tokens: bool) -> Json:
    """The token a route asks for, and how it refuses without; see guard for who may ask what."""
    access = get_access(path)
    if access == "open" or (access == "client" and not tokens):
        return item
    schema = next((schema for start, schema in REFUSALS.items() if path.startswith(start)), "Refusal")
    secured = {name: each for name, each in item.items() if name == "parameters"}
    for method, operation in item.items():
        if method != "parameters":
            responses = {
                **operation["responses"],
                **_build_refusals((401,) if access == "admin" else (401, 429), schema),
            }
            secured[method] = {**operation, "security": [{"token": []}], "responses": responses}
    return secured


def _build_own_paths(columns: Sequence[Column], labels: Sequence[str]) -> Json:
    body = {
        JSON: {
            "schema": build_ref("PredictRequest"),
            "examples": _wrap_examples(row={"row": build_row_example(columns)}),
        }
    }
    answer = {JSON: {"schema": build_ref("PredictAnswer")}}
    return {
        "/predict": _build_post("predict", "Predictions for rows, by column name", body, answer, "Refusal"),
        "/predict-and-explain": _build_explain_path(body),
        "/feedback": _build_feedback_path(labels),
        "/health": _build_get("health", "Whether the process answers", build_open_object({"status": TEXT})),
        "/ready": _build_get(
            "ready", "Whether a model answers", build_open_object({"status": TEXT}), "Refusal", (503,)
        ),
        "/model": _build_get("model", "What is held", build_open_object({"slot": TEXT, "state": TEXT})),
        "/metrics": _build_get("metrics", "Figures for Prometheus", TEXT, kind="text/plain"),
        "/openapi.json": _build_get("openapi", "This document", ANY),
        "/docs": _build_get("docs", "This document as a page", TEXT, kind="text/html"),
        "/admin/reload": _build_reload_path(),
        "/admin/recent": _build_recent_path(),
    }


def _build_explain_path(body: Json) -> Json:
    answer = {JSON: {"schema": build_ref("ExplainAnswer")}}
    path_item = _build_post(
        "predict_and_explain", "Predictions, and which columns moved them", body, answer, "Refusal", (409,)
    )
    responses = path_item["post"]["responses"]
    responses["409"]["description"] = "The held artifact keeps nothing to explain it, or explaining is switched off."
    responses["500"]["description"] = "The contributions did not add up to the probability, so they are withheld."
    return path_item


def _build_feedback_path(labels: Sequence[str]) -> Json:
    outcome = {"request_id": "3f2a-9", "label": next(iter(labels), "label")}
    body = {JSON: {"schema": build_ref("FeedbackRequest"), "examples": _wrap_examples(outcome={"outcome": outcome})}}
    answer = {JSON: {"schema": build_open_object({"accepted": COUNT})}}
    path_item = _build_post("feedback", "What became of predictions", body, answer, "Refusal", (409,))
    responses = path_item["post"]["responses"]
    responses["202"] = {**responses.pop("200"), "description": "The outcomes will be stored"}
    return path_item


def _build_reload_path() -> Json:
    answer = build_open_object({"status": TEXT, "before": TEXT, "version": TEXT})
    [operation] = _build_get("reload", "The slot's file is read again", answer, "Refusal", (403, 409, 422)).values()
    operation["responses"]["409"]["description"] = "The slot is empty, a reload is under way, or the server shuts down."
    operation["responses"]["422"]["description"] = "The release cannot serve; what served before goes on."
    return {"post": operation}


def _build_recent_path() -> Json:
    answer = build_open_object({"process": TEXT, "answers": {"type": "array", "items": {"type": "object"}}})
    [operation] = _build_get(
        "recent", "What was answered last, to compare two slots", answer, "Refusal", (403, 422)
    ).values()
    return {"post": operation}


def _build_mlflow_paths(columns: Sequence[Column]) -> Json:
    row = build_row_example(columns)
    split = {"columns": list(row), "data": [list(row.values())]}
    examples = _wrap_examples(
        dataframe_split={"dataframe_split": split}, dataframe_records={"dataframe_records": [row]}
    )
    sheet = f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
    body = {
        JSON: {"schema": build_ref("InvocationsRequest"), "examples": examples},
        CSV: {"schema": TEXT, "examples": _wrap_examples(sheet=sheet)},
    }
    answer = {JSON: {"schema": build_ref("InvocationsAnswer")}}
    return {
        "/invocations": _build_post(
            "invocations", "The same as MLflow's scoring server", body, answer, "MlflowRefusal"
        ),
        "/ping": _build_get("ping", "Whether a model answers", TEXT, "MlflowRefusal", (503,), "text/plain"),
        "/version": _build_get("version", "The version of MLflow whose protocol is spoken", TEXT, kind="text/plain"),
    }


def _build_open_inference_paths(columns: Sequence[Column], name: str, version: str) -> Json:
    model, versioned = (
        [_build_parameter("name", name)],
        [_build_parameter("name", name), _build_parameter("version", version)],
    )
    paths = {
        "/v2": _build_get("v2_server", "What this server is", build_open_object({"name": TEXT, "version": TEXT})),
        "/v2/health/live": _build_get(
            "v2_live", "Whether the process answers", build_open_object({"live": {"const": True}})
        ),
        "/v2/health/ready": _build_get(
            "v2_ready",
            "Whether a model answers",
            build_open_object({"ready": {"const": True}}),
            "OpenInferenceRefusal",
            (503,),
        ),
    }
    for path, parameters in ((MODEL, model), (f"{MODEL}/versions/{{version}}", versioned)):
        for key, path_item in _build_model_paths(columns, "" if parameters is model else "_version").items():
            paths[path + key] = {"parameters": parameters, **path_item}
    return paths


def _build_model_paths(columns: Sequence[Column], suffix: str) -> dict[str, Json]:
    refusal = "OpenInferenceRefusal"
    binary = {"schema": {"type": "string", "contentMediaType": OCTETS}}
    body = {
        JSON: {"schema": build_ref("InferRequest"), "examples": _wrap_examples(row=build_infer_example(columns))},
        OCTETS: binary,
    }
    answer = {JSON: {"schema": build_ref("InferAnswer")}, OCTETS: binary}
    infer = _build_post(f"v2_infer{suffix}", "Tensors in, tensors out", body, answer, refusal, (404,))
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    }
    infer["post"]["parameters"] = [length]
    tensors = build_open_object({"name": TEXT, "inputs": {"type": "array"}, "outputs": {"type": "array"}})
    ready = build_open_object({"name": TEXT, "ready": {"const": True}})
    return {
        "": _build_get(f"v2_model{suffix}", "Which tensors go in and come out", tensors, refusal, (404, 503)),
        "/ready": _build_get(f"v2_model_ready{suffix}", "Whether the model answers", ready, refusal, (404, 503)),
        "/infer": infer,
    }


def _build_get(
    name: str, summary: str, schema: Json, refusal: str = "Refusal", statuses: Iterable[int] = (), kind: str = JSON
) -> Json:
    responses = {
        "200": {"description": summary, "content": {kind: {"schema": schema}}},
        **_build_refusals(statuses, refusal),
    }
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _build_post(
    name: str, summary: str, body: Json, answer: Json, refusal: str, statuses: Iterable[int] = ()
) -> dict[str, Json]:
    responses = {
        "200": {"description": "Predictions", "content": answer},
        **_build_refusals((*statuses, *PREDICT_STATUSES), refusal),
    }
    request_body = {"required": True, "content": body}
    return {"post": {"operationId": name, "summary": summary, "requestBody": request_body, "responses": responses}}


def _build_refusals(statuses: Iterable[int], schema: str) -> Json:
    content = {JSON: {"schema": build_ref(schema)}}
    return {
        str(status): {"description": STATUS_DESCRIPTIONS[status], "content": content} for status in sorted(statuses)
    }


def _build_parameter(name: str, example: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [example]}, "example": example}


def _wrap_examples(**values: Any) -> Mapping[str, Any]:
    return {name: {"value": value} for name, value in values.items()}
