"""The OpenAPI document of this server, for the model it holds: its columns as a JSON schema, its routes, its refusals.

Written by hand and not by the framework: what a route reads is decided by the held model, not by a Python type, and a
body is parsed past the framework. Tests hold the document to the routes there are and, by schemathesis, to what they
answer. The examples are made from the columns alone; they are rows of nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.serving import VERSION
from include.serving.openapi.schemas import ANY, COUNT, TEXT, Json, infer_example, opened, ref, row_example, schemas
from include.serving.routes import access_of

if TYPE_CHECKING:
    from include.model.schema import Column
    from include.serving.slot.contents import Loaded

JSON, CSV, OCTETS = "application/json", "text/csv", "application/octet-stream"
WHY = {
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
PREDICTING = (400, 413, 415, 422, 500, 503, 504)
REFUSALS = {"/v2": "OpenInferenceRefusal", "/invocations": "MlflowRefusal"}
MODEL = "/v2/models/{name}"


def document(slot: Loaded | None, max_rows: int, tokens: bool = False) -> Json:
    """`slot` None: a server without a model, whose columns are not known. `tokens`: whether clients need one."""
    columns = tuple(slot.inputs.columns.values()) if slot else ()
    labels = (slot.model.meta.positive, slot.model.meta.negative) if slot else ()
    name, version = (slot.model.meta.name, slot.file.version) if slot else ("model", "none")
    paths = {**_own(columns, labels), **_mlflow(columns), **_open_inference(columns, name, version)}
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen model server", "version": VERSION, "description": _about(slot)},
        "paths": {path: _guarded(path, item, tokens) for path, item in paths.items()},
        "components": {"schemas": schemas(columns, labels, max_rows), "securitySchemes": {"token": bearer}},
    }


def _about(slot: Loaded | None) -> str:
    if slot is None:
        return "No model is held now; its columns are not known until one is."
    meta = slot.model.meta
    return f"Holds version {slot.file.version} of {meta.name}, which tells {meta.positive!r} from {meta.negative!r}."


def _guarded(path: str, item: Json, tokens: bool) -> Json:
    """The token a route asks for, and how it refuses without; see guard for who may ask what."""
    access = access_of(path)
    if access == "open" or (access == "client" and not tokens):
        return item
    schema = next((schema for start, schema in REFUSALS.items() if path.startswith(start)), "Refusal")
    told = {name: each for name, each in item.items() if name == "parameters"}
    for method, operation in item.items():
        if method != "parameters":
            responses = {**operation["responses"], **_refusals((401,) if access == "admin" else (401, 429), schema)}
            told[method] = {**operation, "security": [{"token": []}], "responses": responses}
    return told


def _own(columns: Sequence[Column], labels: Sequence[str]) -> Json:
    body = {JSON: {"schema": ref("PredictRequest"), "examples": _examples(row={"row": row_example(columns)})}}
    answer = {JSON: {"schema": ref("PredictAnswer")}}
    return {
        "/predict": _post("predict", "Predictions for rows, by column name", body, answer, "Refusal"),
        "/predict-and-explain": _explain(body),
        "/feedback": _feedback(labels),
        "/health": _get("health", "Whether the process answers", opened({"status": TEXT})),
        "/ready": _get("ready", "Whether a model answers", opened({"status": TEXT}), "Refusal", (503,)),
        "/model": _get("model", "What is held", opened({"slot": TEXT, "state": TEXT})),
        "/metrics": _get("metrics", "Figures for Prometheus", TEXT, kind="text/plain"),
        "/openapi.json": _get("openapi", "This document", ANY),
        "/docs": _get("docs", "This document as a page", TEXT, kind="text/html"),
        "/admin/reload": _reload(),
        "/admin/recent": _recent(),
    }


def _explain(body: Json) -> Json:
    answer = {JSON: {"schema": ref("ExplainAnswer")}}
    described = _post(
        "predict_and_explain", "Predictions, and which columns moved them", body, answer, "Refusal", (409,)
    )
    responses = described["post"]["responses"]
    responses["409"]["description"] = "The held artifact keeps nothing to explain it, or explaining is switched off."
    responses["500"]["description"] = "The contributions did not add up to the probability, so they are withheld."
    return described


def _feedback(labels: Sequence[str]) -> Json:
    outcome = {"request_id": "3f2a-9", "label": next(iter(labels), "label")}
    body = {JSON: {"schema": ref("FeedbackRequest"), "examples": _examples(outcome={"outcome": outcome})}}
    answer = {JSON: {"schema": opened({"accepted": COUNT})}}
    described = _post("feedback", "What became of predictions", body, answer, "Refusal", (409,))
    responses = described["post"]["responses"]
    responses["202"] = {**responses.pop("200"), "description": "The outcomes will be stored"}
    return described


def _reload() -> Json:
    answer = opened({"status": TEXT, "before": TEXT, "version": TEXT})
    [described] = _get("reload", "The slot's file is read again", answer, "Refusal", (403, 409, 422)).values()
    described["responses"]["409"]["description"] = "The slot is empty, a reload is under way, or the server shuts down."
    described["responses"]["422"]["description"] = "The release cannot serve; what served before goes on."
    return {"post": described}


def _recent() -> Json:
    answer = opened({"process": TEXT, "answers": {"type": "array", "items": {"type": "object"}}})
    [described] = _get("recent", "What was answered last, to compare two slots", answer, "Refusal", (403, 422)).values()
    return {"post": described}


def _mlflow(columns: Sequence[Column]) -> Json:
    row = row_example(columns)
    split = {"columns": list(row), "data": [list(row.values())]}
    examples = _examples(dataframe_split={"dataframe_split": split}, dataframe_records={"dataframe_records": [row]})
    sheet = f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
    body = {
        JSON: {"schema": ref("InvocationsRequest"), "examples": examples},
        CSV: {"schema": TEXT, "examples": _examples(sheet=sheet)},
    }
    answer = {JSON: {"schema": ref("InvocationsAnswer")}}
    return {
        "/invocations": _post("invocations", "The same as MLflow's scoring server", body, answer, "MlflowRefusal"),
        "/ping": _get("ping", "Whether a model answers", TEXT, "MlflowRefusal", (503,), "text/plain"),
        "/version": _get("version", "The version of MLflow whose protocol is spoken", TEXT, kind="text/plain"),
    }


def _open_inference(columns: Sequence[Column], name: str, version: str) -> Json:
    model, versioned = [_parameter("name", name)], [_parameter("name", name), _parameter("version", version)]
    paths = {
        "/v2": _get("v2_server", "What this server is", opened({"name": TEXT, "version": TEXT})),
        "/v2/health/live": _get("v2_live", "Whether the process answers", opened({"live": {"const": True}})),
        "/v2/health/ready": _get(
            "v2_ready", "Whether a model answers", opened({"ready": {"const": True}}), "OpenInferenceRefusal", (503,)
        ),
    }
    for path, parameters in ((MODEL, model), (f"{MODEL}/versions/{{version}}", versioned)):
        for key, described in _of_a_model(columns, "" if parameters is model else "_version").items():
            paths[path + key] = {"parameters": parameters, **described}
    return paths


def _of_a_model(columns: Sequence[Column], suffix: str) -> dict[str, Json]:
    refusal = "OpenInferenceRefusal"
    binary = {"schema": {"type": "string", "contentMediaType": OCTETS}}
    body = {JSON: {"schema": ref("InferRequest"), "examples": _examples(row=infer_example(columns))}, OCTETS: binary}
    answer = {JSON: {"schema": ref("InferAnswer")}, OCTETS: binary}
    infer = _post(f"v2_infer{suffix}", "Tensors in, tensors out", body, answer, refusal, (404,))
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    }
    infer["post"]["parameters"] = [length]
    tensors = opened({"name": TEXT, "inputs": {"type": "array"}, "outputs": {"type": "array"}})
    ready = opened({"name": TEXT, "ready": {"const": True}})
    return {
        "": _get(f"v2_model{suffix}", "Which tensors go in and come out", tensors, refusal, (404, 503)),
        "/ready": _get(f"v2_model_ready{suffix}", "Whether the model answers", ready, refusal, (404, 503)),
        "/infer": infer,
    }


def _get(
    name: str, summary: str, schema: Json, refusal: str = "Refusal", refused: Iterable[int] = (), kind: str = JSON
) -> Json:
    responses = {"200": {"description": summary, "content": {kind: {"schema": schema}}}, **_refusals(refused, refusal)}
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _post(
    name: str, summary: str, body: Json, answer: Json, refusal: str, refused: Iterable[int] = ()
) -> dict[str, Json]:
    responses = {
        "200": {"description": "Predictions", "content": answer},
        **_refusals((*refused, *PREDICTING), refusal),
    }
    asked = {"required": True, "content": body}
    return {"post": {"operationId": name, "summary": summary, "requestBody": asked, "responses": responses}}


def _refusals(statuses: Iterable[int], schema: str) -> Json:
    content = {JSON: {"schema": ref(schema)}}
    return {str(status): {"description": WHY[status], "content": content} for status in sorted(statuses)}


def _parameter(name: str, example: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": [example]}, "example": example}


def _examples(**values: Any) -> Mapping[str, Any]:
    return {name: {"value": value} for name, value in values.items()}
