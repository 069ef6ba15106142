"""What MLflow's and the Open Inference Protocol's routes answer, and how they refuse."""

import json
import struct
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from fastapi.testclient import TestClient

from include.serving.app import create_app
from include.serving.exchange import Answer, ParsedRequest, Problem
from include.serving.protocols import mlflow_scoring, open_inference
from include.serving.settings import Settings
from include.serving.wiring import open_service
from tests import credit
from tests.serving.spoken import FORMS

ROWS = credit.rows()[:7]
KINDS = {column.name: column.kind for column in credit.columns()}


@pytest.fixture(scope="module")
def client(source: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    from tests.serving.conftest import stage_in

    directory = tmp_path_factory.mktemp("interop")
    stage_in(directory, source, "blue")
    return _client(directory)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return _client(tmp_path_factory.mktemp("empty"))


def _client(directory: Path) -> TestClient:
    told = {"slot": "blue", "serving_dir": directory, "port": 0, "max_rows": 50}
    return TestClient(create_app(open_service(Settings.model_validate(told))), raise_server_exceptions=False)


SORRY = "The server failed on this request; its log has the reason."
EXPECTED = credit.trained("boosting").predict_proba(ROWS)


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs", "csv"])
def test_invocations_answer_the_probabilities_our_mlflow_model_predicts(form: str, client: TestClient) -> None:
    body, headers = FORMS[form](ROWS)
    answer = client.post("/invocations", content=body, headers=headers)
    assert answer.json() == {"predictions": pytest.approx(EXPECTED, abs=1e-12)}


@pytest.mark.parametrize("path", ["/v2/models/credit/infer", "/v2/models/credit/versions/3/infer"])
def test_tensors_in_json_are_answered_with_three_tensors(path: str, client: TestClient) -> None:
    request = {"id": "r 7", "inputs": _tensors()}
    told = client.post(path, json=request).json()
    probability, label, decision = told.pop("outputs")
    assert told == {"model_name": "credit", "model_version": "3", "id": "r 7", "parameters": {"served_by": "model"}}
    assert probability == {
        "name": "probability", "datatype": "FP64", "shape": [7], "data": pytest.approx(EXPECTED, abs=1e-12)
    }  # fmt: skip
    good = ["bad" if each >= 0.25 else "good" for each in EXPECTED]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [7], "data": good}
    assert decision["data"] == [each == "bad" for each in good]


def test_tensors_as_bytes_are_answered_as_bytes(client: TestClient) -> None:
    answer = client.post("/v2/models/credit/infer", **_binary(_tensors()))
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    probability, label, decision = json.loads(answer.content[:length])["outputs"]
    sizes = [tensor["parameters"]["binary_data_size"] for tensor in (probability, label, decision)]
    raw = answer.content[length:]
    assert len(raw) == sum(sizes) and sizes[0] == 7 * 8 and sizes[2] == 7
    assert np.frombuffer(raw[:56], "<f8").tolist() == pytest.approx(EXPECTED, abs=1e-12)
    assert raw[56:60] == struct.pack("<I", 4) and raw[60:64] in (b"good", b"bad\x03")
    assert set(raw[-7:]) <= {0, 1}


def test_the_outputs_asked_for_are_answered_each_as_asked(client: TestClient) -> None:
    outputs = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "decision"}]
    answer = client.post("/v2/models/credit/infer", json={"inputs": _tensors(), "outputs": outputs})
    told = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    assert [tensor["name"] for tensor in told["outputs"]] == ["label", "decision"]
    assert "data" not in told["outputs"][0] and len(told["outputs"][1]["data"]) == 7


def test_the_model_lists_its_tensors(client: TestClient) -> None:
    for path in ("/v2/models/credit", "/v2/models/credit/versions/3"):
        told = client.get(path).json()
        assert (told["name"], told["versions"], told["platform"]) == ("credit", ["3"], "sklearn_skops")
        kinds = {"number": "FP64", "category": "BYTES"}
        assert told["inputs"] == [
            {"name": name, "datatype": kinds[kind], "shape": [-1]} for name, kind in KINDS.items()
        ]
        assert {tensor["name"]: tensor["datatype"] for tensor in told["outputs"]} == open_inference.OUTPUTS


def test_a_loaded_slot_is_live_and_ready_in_every_tongue(client: TestClient) -> None:
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/credit/ready",
        "/v2/models/credit/versions/3/ready",
    ):
        assert client.get(path).status_code == 200
    assert client.get("/v2").json() == {"name": "evergreen", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
    assert (client.get("/ping").status_code, client.get("/ping").text) == (200, "\n")
    assert client.get("/version").text == mlflow.__version__


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("model", "says"), [
    ("s3cret", "This server holds the model credit and no other; ask for /v2/models/credit."),
    ("credit/versions/31337", "This server holds version 3 of credit and no other; see /v2/models/credit."),
])  # fmt: skip
def test_another_model_or_version_is_not_found(method: str, model: str, says: str, client: TestClient) -> None:
    paths = [f"/v2/models/{model}", f"/v2/models/{model}/ready"] if method == "GET" else [f"/v2/models/{model}/infer"]
    for path in paths:
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()) == (404, {"error": says})


def test_an_empty_slot_is_live_and_not_ready_in_every_tongue(empty: TestClient) -> None:
    why = "The slot is empty; stage a release into it."
    assert empty.get("/v2/health/live").status_code == empty.get("/v2").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/credit", "/v2/models/credit/ready"):
        assert (empty.get(path).status_code, empty.get(path).json()) == (503, {"error": why})
    assert empty.post("/v2/models/credit/infer", json={}).json() == {"error": why}
    for answer in (empty.get("/ping"), empty.post("/invocations", json={})):
        assert answer.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": why}
        assert answer.status_code == 503


def test_a_refusal_names_row_and_field_as_each_protocol_can(client: TestClient) -> None:
    rows = [ROWS[0], {**ROWS[1], "Age": "s3cret"}]
    told = client.post("/invocations", json={"dataframe_records": rows})
    says = {"message": "Age must be a number or null.", "row": 1, "field": "Age"}
    assert (told.status_code, told.json()) == (422, {"error_code": "INVALID_PARAMETER_VALUE", **says})
    tensors = [{**each, "data": [1, "s3cret"]} if each["name"] == "Age" else each for each in _tensors(2)]
    told = client.post("/v2/models/credit/infer", json={"inputs": tensors})
    assert told.json() == {"error": "At row 1, field Age: Age must be a number or null."}


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/credit/infer"])
@pytest.mark.parametrize("headers", [
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "application/json; charset=latin-1"},
    {"content-type": ""},
    {"content-type": "application/json", "content-encoding": "gzip"},
    {"content-encoding": "deflate"},
])  # fmt: skip
def test_a_body_in_another_form_is_refused_unread(path: str, headers: dict[str, str], client: TestClient) -> None:
    answer = client.post(path, content=b"\x1f\x8b" + b"0" * 99, headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/credit/infer"])
def test_ten_megabytes_and_a_million_rows_are_refused(path: str, client: TestClient) -> None:
    for body in (b'{"rows": [' + b'"%s"' % (b"x" * 10_000_000) + b"]}", b'{"rows": [' + b"{}," * 1_000_000 + b"{}]}"):
        assert client.post(path, content=body).status_code == 413
    answer = client.post(path, content=b'{"rows": [' + b"{}," * 100_000 + b"{}]}")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("path", "shape"), [("/v2/nowhere", str), ("/nowhere", dict), ("/v2/models/credit/infer", str)]
)
def test_a_wrong_address_or_method_is_answered_as_its_clients_read_it(
    path: str, shape: type, client: TestClient
) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405) and isinstance(answer.json()["error"], shape)


@pytest.mark.parametrize(("path", "told"), [
    ("/v2/models/credit/infer", {"error": SORRY}),
    ("/invocations", {"error_code": "INTERNAL_ERROR", "message": SORRY}),
    ("/predict", {"error": {"message": SORRY}}),
])  # fmt: skip
def test_a_crash_is_told_as_its_clients_read_it(
    path: str, told: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.serving.endpoints.prediction.Endpoint._parse", lambda *_: 1 / 0)
    answer = client.post(path, json={})
    assert (answer.status_code, answer.json()) == (500, told)


def test_an_answer_that_is_not_the_models_is_marked_in_every_protocol() -> None:
    answer = Answer("3", "blue", "d", [0.5], ["bad"], [True], "rule")
    assert json.loads(mlflow_scoring.render(answer, ParsedRequest([])).body) == {
        "predictions": [0.5],
        "served_by": "rule",
    }
    wanted = {"model": "credit", "id": {}, "outputs": {"label": False}}
    told = json.loads(open_inference.render(answer, ParsedRequest([], wanted)).body)
    assert told["parameters"] == {"served_by": "rule"}


AGE = {"name": "Age", "datatype": "FP64", "shape": [1], "data": [40]}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no tensors", {"inputs": []}, "inputs needs one tensor for each column."),
    ("no list of tensors", {"inputs": {"Age": 1}}, "inputs must be a list of tensors."),
    ("a tensor that is none", {"inputs": [7]}, "A tensor must be an object with name, shape, datatype and data."),
    ("a tensor twice", {"inputs": [AGE, AGE]}, "The same tensor stands there twice; send each once."),
    ("no datatype", {"inputs": [{"name": "Age", "shape": [1], "data": [1]}]}, "A tensor must be an object"),
    ("a flag as a datatype", {"inputs": [AGE | {"datatype": "BOOL", "data": [True]}]}, "datatype of Age must be FP64"),
    ("BF16", {"inputs": [AGE | {"datatype": "BF16"}]}, "The datatype of Age must be FP64"),
    ("a number as a category", {"inputs": [AGE | {"name": "Job"}]}, "The datatype of Job must be BYTES."),
    ("a datatype that is none", {"inputs": [AGE | {"datatype": ["FP64"]}]}, "The datatype of Age must be FP64"),
    ("a shape too deep", {"inputs": [AGE | {"shape": [1, 1, 1]}]}, "The shape of Age must be [n] or [n, 1]"),
    ("a shape too wide", {"inputs": [AGE | {"shape": [1, 2]}]}, "The shape of Age must be [n] or [n, 1]"),
    ("a shape of flags", {"inputs": [AGE | {"shape": [True]}]}, "The shape of Age must be [n] or [n, 1]"),
    ("no rows", {"inputs": [AGE | {"shape": [0], "data": []}]}, "The shape of Age must tell the rows"),
    ("fewer than none", {"inputs": [AGE | {"shape": [-1]}]}, "The shape of Age must tell the rows"),
    ("too many rows", {"inputs": [AGE | {"shape": [2**63]}]}, "A request may hold 50 rows at most; split it."),
    ("shapes that differ", {"inputs": [AGE, AGE | {"name": "Debt", "shape": [2]}]}, "The shape of Debt must tell the"),
    ("too few values", {"inputs": [AGE | {"shape": [2]}]}, "The data of Age must be a list of as many values"),
    ("rows of none", {"inputs": [AGE | {"shape": [1, 1], "data": [[]]}]}, "Age must be a number or null."),
    ("rows of two", {"inputs": [AGE | {"shape": [2, 1], "data": [[1, 2], []]}]}, "Age must be a number or null."),
    ("neither data nor bytes", {"inputs": [{"name": "Age", "datatype": "FP64", "shape": [1]}]}, "Age needs either"),
    ("bytes that are not there", {"inputs": [AGE | {"parameters": {"binary_data_size": 8}}]}, "Age needs either data"),
    ("an integer with a fraction", {"inputs": [AGE | {"datatype": "INT8", "data": [1.0]}]}, "Age must be an integer"),
    ("an integer too large", {"inputs": [AGE | {"datatype": "INT8", "data": [128]}]}, "Age must be an integer that"),
    ("an integer below none", {"inputs": [AGE | {"datatype": "UINT8", "data": [-1]}]}, "Age must be an integer that"),
    ("more than FP32 holds", {"inputs": [AGE | {"datatype": "FP32", "data": [1e39]}]}, "Age must be a finite"),
    ("more than FP16 holds", {"inputs": [AGE | {"datatype": "FP16", "data": [10**400]}]}, "Age must be a finite"),
    ("an output that is none", {"inputs": [AGE], "outputs": [{"name": "s3cret"}]}, "outputs may name probability"),
    ("an output twice", {"inputs": [AGE], "outputs": [{"name": "label"}] * 2}, "outputs may name probability"),
    ("outputs that are no list", {"inputs": [AGE], "outputs": "label"}, "outputs must be a list of tensors."),
    ("parameters that are no object", {"inputs": [AGE], "parameters": []}, "parameters must be an object."),
    ("a flag that is none", {"inputs": [AGE], "parameters": {"binary_data_output": 1}}, "The parameter binary_data"),
    ("a sequence", {"inputs": [AGE], "parameters": {"sequence_id": 1}}, "This server has no sequence_id; leave"),
    ("an id that is none", {"inputs": [AGE], "id": 7}, "id must be a string of at most 256 printable characters."),
    ("an id of two lines", {"inputs": [AGE], "id": "a\nb"}, "id must be a string of at most 256 printable characters."),
    ("a key of nobody", {"inputs": [AGE], "s3cret": 1}, "The body must be an object with inputs,"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "request_", "says"), REFUSED, ids=[case[0] for case in REFUSED])
def test_tensors_that_do_not_fit_are_refused_in_one_sentence(
    what: str, request_: dict[str, Any], says: str, client: TestClient
) -> None:
    answer = client.post("/v2/models/credit/infer", json=request_)
    told = answer.json()["error"]
    assert answer.status_code == 422 and says in told and told.endswith(".")
    assert "s3cret" not in told


BYTES: list[tuple[str, str, bytes, str | None, str]] = [
    ("too few bytes", "Age", b"1234567", None, "The bytes of Age must be 8 for each row."),
    ("a string that ends early", "Job", b"\x05\0\0\0abc", None, "The bytes of Job end before its BYTES do."),
    ("a length that ends early", "Job", b"\x05\0", None, "The bytes of Job end before its BYTES do."),
    ("four gigabytes", "Job", b"\xff\xff\xff\xff" + b"x" * 99, None, "The bytes of Job end before its BYTES do."),
    ("two strings", "Job", b"\x01\0\0\0a\x01\0\0\0b", None, "The bytes of Job hold more than its shape says."),
    ("no UTF-8", "Job", b"\x01\0\0\0\xff", None, "At row 0, field Job: Job must be UTF-8."),
    ("infinity", "Age", struct.pack("<d", float("inf")), None, "Age must be a finite number that fits into 64 bits."),
    ("a length of JSON beyond the body", "Age", b"", "99999", "Inference-Header-Content-Length must be the length"),
    ("a length that is none", "Age", b"", "-1", "Inference-Header-Content-Length must be the length"),
    ("a long length", "Age", b"", "9" * 5000, "Inference-Header-Content-Length must be the length"),
    ("a length in other digits", "Age", b"", "\u0661".encode().decode("latin-1"), "Inference-Header-Content-Length"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "raw", "length", "says"), BYTES, ids=[case[0] for case in BYTES])
def test_bytes_that_do_not_fit_are_refused_in_one_sentence(
    what: str, name: str, raw: bytes, length: str | None, says: str, client: TestClient
) -> None:
    datatype = "FP64" if KINDS[name] == "number" else "BYTES"
    tensor = {"name": name, "shape": [1], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": (length or str(len(head))).encode("latin-1")}
    answer = client.post("/v2/models/credit/infer", content=head + raw, headers=headers)
    assert answer.status_code in (400, 422) and says in answer.json()["error"]


def test_bytes_left_over_are_refused(client: TestClient) -> None:
    head = json.dumps({"inputs": [AGE]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post("/v2/models/credit/infer", content=head + b"x", headers=headers)
    assert answer.status_code == 422 and answer.json()["error"].startswith("The bytes behind the JSON")


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16",
                                      "FP32", "FP64"])  # fmt: skip
def test_a_number_is_the_same_as_json_and_as_bytes_of_any_datatype(datatype: str, client: TestClient) -> None:
    dtype = open_inference.tensors.NUMBERS[datatype]
    values = [3, 100] if dtype.kind != "f" else [0.1, 1e-7]
    sent = {"name": "Amount", "datatype": datatype, "shape": [2, 1], "data": [[value] for value in values]}
    as_json = client.post("/v2/models/credit/infer", json={"inputs": [sent]})
    raw = np.array(values, dtype).tobytes()
    head = {**sent, "parameters": {"binary_data_size": len(raw)}}
    del head["data"]
    text = json.dumps({"inputs": [head]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    as_bytes = client.post("/v2/models/credit/infer", content=text + raw, headers=headers)
    assert as_json.status_code == 200 and as_json.json() == as_bytes.json()


MLFLOW: list[tuple[str, Any, str]] = [
    ("two formats", {"instances": [{}], "inputs": {}}, "The body must be an object with exactly one of"),
    ("columns without names", {"dataframe_split": {"data": [[1]]}}, "dataframe_split must be an object with columns"),
    ("no data", {"dataframe_split": {"columns": ["Age"], "data": []}}, "dataframe_split needs data, a list"),
    ("names that are none", {"dataframe_split": {"columns": [1], "data": [[1]]}}, "dataframe_split needs columns"),
    ("a column twice", {"dataframe_split": {"columns": ["Age", "Age"], "data": [[1, 2]]}}, "The same column stands"),
    ("a short row", {"dataframe_split": {"columns": ["Age"], "data": [[]]}}, "A row must be a list of 1 values"),
    ("rows by position", {"instances": [[1, 2]]}, "A row must be an object of column names and values."),
    ("inputs by position", {"inputs": [[1, 2]]}, "A row must be an object of column names and values."),
    ("inputs of two lengths", {"inputs": {"Age": [1], "Debt": [1, 2]}}, "inputs needs lists of one length"),
    ("inputs that are no lists", {"inputs": {"Age": 1}}, "inputs must hold a list of values for each column."),
    ("no inputs", {"inputs": {}}, "inputs must hold a list of values for each column."),
    ("params", {"instances": [{"Age": 1}], "params": {"s3cret": 1}}, "The model takes no params; leave them out."),
]


@pytest.mark.parametrize(("what", "request_", "says"), MLFLOW, ids=[case[0] for case in MLFLOW])
def test_what_mlflows_server_would_guess_is_refused(what: str, request_: Any, says: str, client: TestClient) -> None:
    answer = client.post("/invocations", json=request_)
    told = answer.json()
    assert answer.status_code == 422 and told["message"].startswith(says) and told["error_code"]
    assert "s3cret" not in answer.text


SHEETS: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 400, "The body is empty; send rows."),
    ("a head alone", b"Amount\n", 422, "The CSV needs a head line of column names and at least one row."),
    ("a short line", b"Amount,Age\n1\n", 422, "A row must be a list of 2 values, one for each column."),
    ("words for a number", b"Amount\ns3cret\n", 422, "Amount must be a number."),
    ("NaN", b"Amount\nNaN\n", 422, "Amount must be a number."),
    ("infinity", b"Amount\ninf\n", 422, "Amount must be a number."),
    ("1e400", b"Amount\n1e400\n", 422, "Amount must be a finite number that fits into 64 bits."),
    ("an underscore", b"Amount\n1_000\n", 422, "Amount must be a number."),
    ("other digits", "Amount\n\u0663\n".encode(), 422, "Amount must be a number."),
    ("an empty cell", b"Amount,Age\n,1\n", 422, "Amount must be given."),
    ("an index", b",Amount\n0,1\n", 422, "The model has no such column."),
    ("a quote left open", b'Amount\n"1\n', 400, "The body is not CSV; send a head line of column names and a line for"),
    ("a cell too large", b"Amount\n" + b"1" * 200_000, 400, "The body is not CSV; send a head line of column names"),
]


@pytest.mark.parametrize(("what", "body", "status", "says"), SHEETS, ids=[case[0] for case in SHEETS])
def test_a_sheet_is_read_as_strictly(what: str, body: bytes, status: int, says: str, client: TestClient) -> None:
    answer = client.post("/invocations", content=body, headers={"content-type": "text/csv; charset=utf-8"})
    assert answer.status_code == status and answer.json()["message"].startswith(says)
    assert "s3cret" not in answer.text


def test_a_sheet_as_a_spreadsheet_and_as_pandas_write_it_is_read(client: TestClient) -> None:
    table = credit.data().head(7).drop(columns=credit.LABEL)
    for text in (table.to_csv(index=False), "\ufeff" + table.to_csv(index=False, lineterminator="\r\n")):
        answer = client.post("/invocations", content=text.encode(), headers={"content-type": "text/csv"})
        assert answer.json()["predictions"] == pytest.approx(EXPECTED, abs=1e-12)


def test_a_problem_without_a_place_is_the_sentence_alone() -> None:
    assert json.loads(open_inference.refuse(Problem(400, "No.")).body) == {"error": "No."}
    assert json.loads(mlflow_scoring.refuse(Problem(500, "No.")).body)["error_code"] == "INTERNAL_ERROR"


def _tensors(count: int = 7) -> list[dict[str, Any]]:
    kinds = {"number": "FP64", "category": "BYTES"}
    return [
        {"name": name, "datatype": kinds[kind], "shape": [count], "data": [row[name] for row in ROWS[:count]]}
        for name, kind in KINDS.items()
    ]


def _binary(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """The same tensors as bytes, and every answer asked for as bytes: what Triton's client does unasked."""
    raw, described = b"", []
    for tensor in tensors:
        values = tensor.pop("data")
        if tensor["datatype"] == "FP64":
            encoded = np.array(values, "<f8").tobytes()
        else:
            encoded = b"".join(struct.pack("<I", len(each)) + each for each in ((v or "").encode() for v in values))
        described.append({**tensor, "parameters": {"binary_data_size": len(encoded)}})
        raw += encoded
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    return {"content": head + raw, "headers": headers}
