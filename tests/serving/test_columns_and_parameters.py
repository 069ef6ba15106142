"""What a request holds beside the values of the model's columns, in every protocol, over the port: columns the model
does not need, optional fields that are null, parameters, and integers that no float holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from include.manifest import DEFAULT_PATH
from tests import credit
from tests.model_server import model_server
from tests.serving.spoken import FORMS

NEEDED = ("Age", "Amount", "Home")
ROWS = credit.rows()[:3]
NARROW = [{name: row[name] for name in NEEDED} for row in ROWS]
PATHS = {"native": "/predict", "tensors": "/v2/models/credit/infer", "binary_tensors": "/v2/models/credit/infer"}
INFER = "/v2/models/credit/infer"
TOO_LONG = 2**53 + 1


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A model of three columns, under a contract of thirteen."""
    place, narrow = tmp_path_factory.mktemp("server"), credit.trained("boosting", *NEEDED)
    told = {"EVERGREEN_MANIFEST": str(DEFAULT_PATH), "EVERGREEN_STORE": str(place / "store")}
    with model_server(place, model=narrow, **told) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def ask(client: httpx.Client, form: str, rows: list[dict[str, Any]]) -> httpx.Response:
    body, headers = FORMS[form](rows)
    return client.post(PATHS.get(form, "/invocations"), content=body, headers=headers)


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_the_contract_that_the_model_does_not_need_are_taken_and_change_nothing(
    form: str, client: httpx.Client
) -> None:
    whole, narrow = ask(client, form, ROWS), ask(client, form, NARROW)
    assert whole.status_code == 200 and whole.content == narrow.content
    if form == "native":
        expected = credit.trained("boosting", *NEEDED).predict_proba(NARROW)
        assert [each["probability"] for each in whole.json()["predictions"]] == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_what_no_contract_names_is_refused_all_the_same(form: str, client: httpx.Client) -> None:
    refused = ask(client, form, [{**ROWS[0], "Shoes": 1.0}])
    assert refused.status_code == 422 and "The model has no such column." in refused.text
    wrong = (
        ask(client, form, [{**ROWS[0], "Income": "1.5" if form != "csv" else "1,5"}]) if "tens" not in form else None
    )
    assert wrong is None or (wrong.status_code == 422 and "Income must be a number or null." in wrong.text)


def test_the_documents_name_what_is_needed_and_what_may_be_sent(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {*NEEDED, "Income"} <= schemas["Row"]["properties"].keys() and schemas["Row"]["required"] == ["Amount"]
    explained = schemas["ExplainAnswer"]["properties"]["predictions"]["items"]["properties"]["contributions"]
    assert explained["required"] == [*(name for name in credit.rows()[0] if name in NEEDED)]
    assert {each["name"] for each in client.get("/v2/models/credit").json()["inputs"]} == {*NEEDED}


# --- what may be left out may be null --------------------------------------------------------------------------------

AGE = {"name": "Age", "datatype": "FP64", "shape": [1], "data": [40]}
AMOUNT = {"name": "Amount", "datatype": "FP64", "shape": [1], "data": [900]}
HOME = {"name": "Home", "datatype": "BYTES", "shape": [1], "data": ["rent"]}
TENSORS = [AGE, AMOUNT, HOME]
ROW = NARROW[0]
OUTPUT, SIZE = {"name": "probability", "parameters": None}, {"binary_data_size": None}
BASE64 = {"parameters": {"content_type": "base64"}}
NULLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "row": ("/predict", {"rows": [ROW]}, {"row": None}),
    "rows": ("/predict", {"row": ROW}, {"rows": None}),
    "explained": ("/predict-and-explain", {"row": ROW}, {"rows": None}),
    "params": ("/invocations", {"instances": [ROW]}, {"params": None}),
    "another format": ("/invocations", {"instances": [ROW]}, {"inputs": None, "dataframe_split": None}),
    "id": (INFER, {"inputs": TENSORS}, {"id": None}),
    "parameters": (INFER, {"inputs": TENSORS}, {"parameters": None}),
    "outputs": (INFER, {"inputs": TENSORS}, {"outputs": None}),
    "a parameter": (INFER, {"inputs": TENSORS}, {"parameters": {"binary_data_output": None, "content_type": None}}),
    "of Triton": (INFER, {"inputs": TENSORS}, {"parameters": {"sequence_id": 0, "sequence_start": False}}),
    "an output's": (INFER, {"inputs": TENSORS, "outputs": [{"name": "probability"}]}, {"outputs": [OUTPUT]}),
    "a tensor's": (INFER, {"inputs": TENSORS}, {"inputs": [AGE, AMOUNT | {"parameters": None}, HOME]}),
    "its size": (INFER, {"inputs": TENSORS}, {"inputs": [AGE | {"parameters": SIZE}, AMOUNT, HOME]}),
    "the model": (INFER, {"inputs": TENSORS}, {"model_name": None, "model_version": None}),
    "a row's number": ("/feedback", {"outcome": {"request_id": "r", "label": "bad"}}, {
        "outcome": {"request_id": "r", "label": "bad", "row": None, "time": None}, "outcomes": None}),
}  # fmt: skip


@pytest.mark.parametrize(("path", "plain", "nulls"), NULLS.values(), ids=NULLS)
def test_what_may_be_left_out_may_be_null(
    path: str, plain: dict[str, Any], nulls: dict[str, Any], client: httpx.Client
) -> None:
    without, with_nulls = (client.post(path, json=body) for body in (plain, plain | nulls))
    assert without.status_code in (200, 202, 409)  # 409: this model keeps nothing to explain it
    assert (with_nulls.status_code, with_nulls.content) == (without.status_code, without.content)


def test_data_that_is_null_leaves_a_tensor_to_its_bytes(client: httpx.Client) -> None:
    tensor = AMOUNT | {"data": None, "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [AGE, tensor, HOME]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = client.post(INFER, content=head + np.float64(900).tobytes(), headers=headers)
    assert answer.json() == client.post(INFER, json={"inputs": TENSORS}).json()


# --- a parameter is honoured or refused -----------------------------------------------------------------------------


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_base64_is_decoded(client: httpx.Client) -> None:
    coded = HOME | {"data": [base64.b64encode(b"rent").decode()]} | BASE64
    answer = client.post(INFER, json={"inputs": [AGE, AMOUNT, coded]})
    assert answer.status_code == 200 and answer.json() == client.post(INFER, json={"inputs": TENSORS}).json()


@pytest.mark.parametrize("content_type", ["np", "pd", "str"])
def test_what_a_content_type_says_anyway_is_taken(content_type: str, client: httpx.Client) -> None:
    told = {"parameters": {"content_type": content_type}}
    answer = client.post(
        INFER, json={"inputs": [AGE, AMOUNT, HOME | told], "outputs": [{"name": "label"} | told], **told}
    )
    assert answer.status_code == 200


REFUSED: dict[str, dict[str, Any]] = {
    "no base64": {"inputs": [AGE, AMOUNT, HOME | BASE64 | {"data": ["re nt"]}]},
    "no text in it": {"inputs": [AGE, AMOUNT, HOME | BASE64 | {"data": ["/w=="]}]},
    "times": {"inputs": [AGE, AMOUNT, HOME | {"parameters": {"content_type": "datetime"}}]},
    "a list": {"inputs": [AGE, AMOUNT, HOME | {"parameters": {"content_type": ["str"]}}]},
    "a number in base64": {"inputs": [AGE | BASE64, AMOUNT, HOME]},
    "a number as text": {"inputs": [AGE | {"parameters": {"content_type": "str"}}, AMOUNT, HOME]},
    "a request of pictures": {"inputs": TENSORS, "parameters": {"content_type": "pillow_image"}},
    "an output in base64": {"inputs": TENSORS, "outputs": [{"name": "label"} | BASE64]},
    "an output of another type": {"inputs": TENSORS, "outputs": [{"name": "probability", "datatype": "FP32"}]},
    "a sequence's start": {"inputs": TENSORS, "parameters": {"sequence_start": True}},
    "classes": {"inputs": TENSORS, "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
    "another model": {"inputs": TENSORS, "model_name": "other"},
    "another version": {"inputs": TENSORS, "model_version": "2"},
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_parameter_that_would_change_the_answer_is_refused(body: dict[str, Any], client: httpx.Client) -> None:
    answer = client.post(INFER, json=body)
    assert answer.status_code == (404 if "model_name" in body or "model_version" in body else 422), answer.text
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize("kind", ["application/json; format=pandas-records", "text/csv; header=absent"])
def test_a_content_type_that_says_how_to_read_is_refused(kind: str, client: httpx.Client) -> None:
    body = FORMS["csv" if "csv" in kind else "dataframe_records"](NARROW)[0]
    assert client.post("/invocations", content=body, headers={"content-type": kind}).status_code == 415


# --- an integer is exact or refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"binary_tensors"}))  # whose helper packs floats
def test_an_integer_that_no_float_holds_is_refused_in_every_protocol(
    form: str, sign: int, client: httpx.Client
) -> None:
    answer = ask(client, form, [{**NARROW[0], "Amount": sign * TOO_LONG}])
    assert answer.status_code == 422 and "Amount must be a number that a 64-bit float holds exactly" in answer.text
    assert ask(client, form, [{**NARROW[0], "Amount": sign * (TOO_LONG - 1)}]).status_code == 200


def test_the_digits_by_which_javascript_names_a_float_are_that_float(client: httpx.Client) -> None:
    """Its JSON has no exponent below 1e21, and no digits beyond the seventeenth."""
    amount = 1.2345678901234568e20
    written = client.post("/predict", content=json.dumps({"row": ROW | {"Amount": 123456789012345680000}}))
    assert int(amount) != 123456789012345680000 and written.status_code == 200
    assert written.json() == client.post("/predict", json={"row": ROW | {"Amount": amount}}).json()


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
@pytest.mark.parametrize("value", [TOO_LONG, 9223372036854771000, 2**62 + 2**10])
def test_64_bits_of_an_integer_are_exact_or_refused(value: int, datatype: str, client: httpx.Client) -> None:
    tensor = AMOUNT | {"datatype": datatype, "data": [value]}
    as_json = client.post(INFER, json={"inputs": [AGE, tensor, HOME]})
    raw = np.array([value], {"INT64": "<i8", "UINT64": "<u8"}[datatype]).tobytes()
    told = tensor | {"parameters": {"binary_data_size": len(raw)}, "data": None}
    head = json.dumps({"inputs": [AGE, told, HOME]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    as_bytes = client.post(INFER, content=head + raw, headers=headers)
    expected = 200 if float(value) == value else 422
    assert as_json.status_code == as_bytes.status_code == expected and as_json.json() == as_bytes.json()


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 2**24 + 1), ("FP16", 2**11 + 1)])
def test_an_integer_that_its_float_type_would_round_is_refused(datatype: str, value: int, client: httpx.Client) -> None:
    for sent, status in ((value, 422), (value - 1, 200)):
        tensor = AMOUNT | {"datatype": datatype, "data": [sent]}
        assert client.post(INFER, json={"inputs": [AGE, tensor, HOME]}).status_code == status
