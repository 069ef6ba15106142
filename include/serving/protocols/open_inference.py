"""The Open Inference Protocol, version 2, over HTTP: what the clients of KServe, Triton and MLServer speak.

One tensor for each column, shape [n] or [n, 1]: numbers as FP64 (or any other number type, which is then exact or
refused), categories as BYTES. Three tensors come back: probability FP64, label BYTES, decision BOOL, each of shape [n].
Tensors travel as JSON or, by the binary data extension, as bytes behind the JSON; Triton's client does that unasked.

Missing: a column that is not sent, null (or NaN, as Triton's client writes it) in JSON, NaN in the bytes of a float
tensor. Bytes of integers cannot say missing: send FP64. BYTES has no way of its own either, so an empty string there is
missing, in both forms alike, unless the training saw an empty string as a category.

What the protocol calls optional may be null as well as absent. A parameter that changes what is computed is honoured
or refused: `content_type` (MLServer's) may be base64 for a tensor of BYTES and else must mean what the datatype says;
shared memory, sequences, classification and another model than the path's are refused. One that we do not know is
ignored, as the protocol wants it.

Protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
Extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic_core import to_json

from include.serving.exchange import ParsedRequest, Problem, RenderedResponse, RequestRefused
from include.serving.protocols import tensors
from include.serving.protocols.request_body import check_headers, check_row_count, parse_json
from include.serving.slot.input_schema import InputSchema

if TYPE_CHECKING:
    from include.model.artifact import ArtifactMeta
    from include.model.schema import Column
    from include.serving.exchange import Answer

JSON, BINARY = "application/json", "application/octet-stream"
HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)
OUTPUTS: Final = {"probability": "FP64", "label": "BYTES", "decision": "BOOL"}
PLATFORMS = {"onnx": "onnxruntime_onnx", "treelite": "treelite_treelite", "skops": "sklearn_skops"}
TENSOR_KEYS = {"name", "shape", "datatype", "parameters", "data"}
OUTPUT_KEYS = {"name", "parameters"}
REQUEST_KEYS = {"id", "parameters", "inputs", "outputs", "model_name", "model_version"}
UNSUPPORTED = {"classification", "sequence_id", "sequence_start", "sequence_end", "shared_memory_region"}
CONTENT_TYPES = ("np", "pd", "str")  # MLServer's words for values that are what they look like
LONGEST_ID = 256
Found = TypeVar("Found")


def parse(body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int) -> ParsedRequest | Problem:
    """The request of an `infer` route. `wanted`: model, id, and for each wanted output whether as bytes."""
    try:
        return _parse_request(body, headers, schema, max_rows)
    except RequestRefused as refused:
        return refused.problem


def render(answer: Answer, parsed: ParsedRequest) -> RenderedResponse:
    outputs, raw = [], []
    for output, as_bytes in parsed.answer_options["outputs"].items():
        values = _VALUES[output](answer)
        tensor = {"name": output, "datatype": OUTPUTS[output], "shape": [len(values)]}
        if as_bytes:
            raw.append(_ENCODERS[output](values))
            outputs.append({**tensor, "parameters": {"binary_data_size": len(raw[-1])}})
        else:
            outputs.append({**tensor, "data": values})
    identity = {
        "model_name": parsed.answer_options["model"],
        "model_version": answer.version,
        **parsed.answer_options["id"],
    }
    head = to_json({**identity, "parameters": {"served_by": answer.served_by}, "outputs": outputs})
    if not raw:
        return RenderedResponse(head)
    return RenderedResponse(b"".join((head, *raw)), BINARY, {HEADER_LENGTH: str(len(head))})


def refuse(problem: Problem) -> RenderedResponse:
    """The protocol knows one string, so row and field stand in it."""
    places = ", ".join(f"{name} {place}" for name, place in problem.location.items())
    return RenderedResponse(to_json({"error": f"At {places}: {problem.message}" if places else problem.message}))


def build_server_metadata(version: str) -> dict[str, Any]:
    return {"name": "evergreen", "version": version, "extensions": list(EXTENSIONS)}


def build_model_metadata(meta: ArtifactMeta, version: str) -> dict[str, Any]:
    """Which tensors go in and come out. -1 is the number of rows."""
    inputs = [(column.name, "FP64" if column.kind == "number" else "BYTES") for column in meta.columns]
    return {
        "name": meta.name,
        "versions": [version],
        "platform": PLATFORMS[meta.runtime],
        "inputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in inputs],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()],
    }


def check_model(name: str, version: str | None, held_name: str, held_version: str) -> Problem | None:
    """Why a path's model or version is not the one held."""
    if name != held_name:
        return Problem(404, f"This server holds the model {held_name} and no other; ask for /v2/models/{held_name}.")
    if version is not None and version != held_version:
        return Problem(
            404, f"This server holds version {held_version} of {held_name} and no other; see /v2/models/{held_name}."
        )
    return None


def _parse_request(body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int) -> ParsedRequest:
    _unwrap(check_headers(headers, (JSON, BINARY)))
    head, raw = _split_body(body, headers.get(HEADER_LENGTH))
    request = _unwrap(parse_json(head, nan_is_missing=True))
    if not isinstance(request, dict) or not {"inputs"} <= request.keys() <= REQUEST_KEYS:
        raise RequestRefused(422, "The body must be an object with inputs, and if you like id, parameters and outputs.")
    _unwrap(_check_named_model(request, schema))
    parameters = _parse_parameters(request, "parameters")
    _parse_content_type(parameters, "parameters")
    outputs = _parse_outputs(request.get("outputs"), _parse_flag(parameters, "binary_data_output"))
    answer_options = {"model": schema.model, "id": _parse_id(request.get("id")), "outputs": outputs}
    return ParsedRequest(
        _unwrap(schema.check_rows(_read_rows(request["inputs"], raw, schema, max_rows))), answer_options
    )


def _unwrap(result: Found | Problem) -> Found:
    if isinstance(result, Problem):
        raise RequestRefused(result.status, result.message, result.row, result.field)
    return result


def _split_body(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body and the bytes behind it."""
    if length is None:
        return body, memoryview(b"")
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else -1
    if not 0 <= size <= len(body):
        raise RequestRefused(400, "Inference-Header-Content-Length must be the length of the body's JSON in bytes.")
    return body[:size], memoryview(body)[size:]


def _parse_id(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str) and len(value) <= LONGEST_ID and value.isprintable():
        return {"id": value}
    raise RequestRefused(422, f"id must be a string of at most {LONGEST_ID} printable characters.", field="id")


def _parse_parameters(owner: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Without those that are null. One of Triton's that is 0, false or empty asks for nothing, by its documents."""
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestRefused(422, "parameters must be an object.", field=field)
    refused = [name for name in sorted(UNSUPPORTED & parameters.keys()) if parameters[name]]
    if refused:
        raise RequestRefused(422, f"This server has no {refused[0]}; leave the parameter out.", field=field)
    return {name: value for name, value in parameters.items() if value is not None}


def _parse_content_type(
    parameters: Mapping[str, Any], field: str, accepted: Sequence[str] = CONTENT_TYPES
) -> str | None:
    content_type: str | None = parameters.get("content_type")
    if content_type is not None and content_type not in accepted:
        raise RequestRefused(
            422, f"The content_type may be {', '.join(accepted)} here; leave it out, or send it so.", field=field
        )
    return content_type


def _check_named_model(request: Mapping[str, Any], schema: InputSchema) -> Problem | None:
    """What a body repeats of the path must be what is held."""
    name, version = (request.get(key) for key in ("model_name", "model_version"))
    held_name, held_version = schema.model, schema.version
    return check_model(
        held_name if name is None else name, None if version is None else str(version), held_name, held_version
    )


def _parse_flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestRefused(422, f"The parameter {name} must be true or false.", field=name)
    return value


def _parse_outputs(outputs: Any, as_bytes: bool) -> dict[str, bool]:
    if outputs is None or outputs == []:
        return dict.fromkeys(OUTPUTS, as_bytes)
    names = [str(each.get("name")) if isinstance(each, dict) else "" for each in _check_list(outputs, "outputs")]
    if not OUTPUTS.keys() >= set(names) or len(set(names)) < len(names):
        raise RequestRefused(422, f"outputs may name {', '.join(OUTPUTS)}, each once.", field="outputs")
    if not all(each.keys() <= OUTPUT_KEYS for each in outputs):
        raise RequestRefused(422, "An output may hold name and parameters and nothing else.", field="outputs")
    parameters = [_parse_parameters(each, "outputs") for each in outputs]
    for each in parameters:
        _parse_content_type(each, "outputs")
    return dict(zip(names, (_parse_flag(each, "binary_data", as_bytes) for each in parameters), strict=True))


def _check_list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestRefused(422, f"{field} must be a list of tensors.", field=field)
    return value


def _read_rows(inputs: Any, raw: memoryview, schema: InputSchema, max_rows: int) -> list[dict[str, Any]]:
    """The tensors turned into rows, whose values are still to be checked."""
    if not _check_list(inputs, "inputs"):
        raise RequestRefused(422, "inputs needs one tensor for each column.", field="inputs")
    columns: dict[str, list[Any]] = {}
    first, count = 0, None
    for tensor in inputs:
        column = _find_column(tensor, columns, schema)
        count = _check_count(tensor, column.name, count, max_rows)
        parameters = _parse_parameters(tensor, column.name)
        size = _parse_size(tensor, parameters, column.name)
        values = _read_values(tensor, column, count, None if size is None else raw[first : first + size])
        columns[column.name] = _interpret(values, parameters, column)
        first += size or 0
    if first != len(raw):
        raise RequestRefused(422, "The bytes behind the JSON are not as many as the binary_data_size of all inputs.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _find_column(tensor: Any, columns: Mapping[str, Any], schema: InputSchema) -> Column:
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str) or not {"name", "shape", "datatype"} <= tensor.keys() <= TENSOR_KEYS:
        raise RequestRefused(422, "A tensor must be an object with name, shape, datatype and data.", field="inputs")
    if name not in schema.columns:
        _unwrap(schema.refuse_unknown(name))
    if name in columns:
        raise RequestRefused(422, "The same tensor stands there twice; send each once.", field=name)
    return schema.columns[name]


def _check_count(tensor: Mapping[str, Any], name: str, expected: int | None, max_rows: int) -> int:
    """Rows, by the shape."""
    shape = tensor["shape"]
    if (
        not isinstance(shape, list)
        or [type(size) for size in shape] not in ([int], [int, int])
        or shape[1:] not in ([], [1])
    ):
        raise RequestRefused(422, f"The shape of {name} must be [n] or [n, 1] for n rows.", field=name)
    count: int = shape[0]
    if count < 1 or (expected is not None and count != expected):
        raise RequestRefused(422, f"The shape of {name} must tell the rows of the request, at least one.", field=name)
    _unwrap(check_row_count(count, name, max_rows))
    return count


def _parse_size(tensor: Mapping[str, Any], parameters: Mapping[str, Any], name: str) -> int | None:
    """How many of the bytes behind the JSON are this tensor's; None for one that stands in the JSON."""
    size, has_data = parameters.get("binary_data_size"), tensor.get("data") is not None
    if size is None and has_data:
        return None
    if type(size) is not int or size < 0 or has_data:
        raise RequestRefused(422, f"{name} needs either data or the parameter binary_data_size.", field=name)
    return size


def _read_values(tensor: Mapping[str, Any], column: Column, count: int, raw: memoryview | None) -> list[Any]:
    datatype, is_number = tensor["datatype"], column.kind == "number"
    if not isinstance(datatype, str) or datatype not in (tensors.NUMBERS if is_number else ("BYTES",)):
        accepted = "FP64, or another FP, INT or UINT" if is_number else "BYTES"
        raise RequestRefused(422, f"The datatype of {column.name} must be {accepted}.", field=column.name)
    if raw is None:
        flat = _flatten(tensor["data"], len(tensor["shape"]), count, column.name)
        return tensors.cast_numbers(flat, datatype, column.name) if is_number else flat
    return (tensors.decode_numbers if is_number else tensors.decode_strings)(raw, datatype, count, column.name)


def _interpret(values: list[Any], parameters: Mapping[str, Any], column: Column) -> list[Any]:
    if column.kind == "number":
        _parse_content_type(parameters, column.name, ("np", "pd"))
        return values
    if _parse_content_type(parameters, column.name, (*CONTENT_TYPES, "base64")) == "base64":
        values = tensors.decode_base64(values, column.name)
    return values if "" in column.categories else [None if value == "" else value for value in values]


def _flatten(data: Any, depth: int, count: int, name: str) -> list[Any]:
    """`data` may be nested as the shape says, or flat."""
    if depth == 2 and isinstance(data, list) and all(isinstance(each, list) and len(each) == 1 for each in data):
        data = [value for (value,) in data]
    if not isinstance(data, list) or len(data) != count:
        raise RequestRefused(422, f"The data of {name} must be a list of as many values as its shape says.", field=name)
    return data


_VALUES: dict[str, Callable[[Answer], list[Any]]] = {
    "probability": lambda answer: answer.probabilities,
    "label": lambda answer: answer.labels,
    "decision": lambda answer: answer.decisions,
}
_ENCODERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    "probability": tensors.encode_floats,
    "label": tensors.encode_strings,
    "decision": tensors.encode_flags,
}
