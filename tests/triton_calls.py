"""What Triton's HTTP client makes of a model server, as one line of JSON: `python -m tests.triton_calls HOST:PORT`.

A process of its own, because the client brings gevent, and gevent in a test process is gevent in every test after it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests import credit

ROWS = credit.rows()[:9]
MODEL = "credit"
OUTPUTS = ("probability", "label", "decision")


def calls(place: str) -> dict[str, Any]:
    with triton.InferenceServerClient(place) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "3"),
            "other_model_ready": client.is_model_ready("other") or client.is_model_ready(MODEL, "4"),
            "server": client.get_server_metadata(),
            "model": client.get_model_metadata(MODEL),
            "binary": _inferred(client, sent_binary=True, asked_binary=None),
            "json": _inferred(client, sent_binary=False, asked_binary=False),
            "mixed": _inferred(client, sent_binary=True, asked_binary=False),
            "refused": _refused(client),
        }


def _inferred(client: Any, sent_binary: bool, asked_binary: bool | None) -> dict[str, Any]:
    wanted = None if asked_binary is None else [triton.InferRequestedOutput(name, asked_binary) for name in OUTPUTS]
    result = client.infer(MODEL, [_input(column, sent_binary) for column in credit.columns()], "3", wanted, "r-9")
    found = {name: result.as_numpy(name) for name in OUTPUTS}
    told = {key: value for key, value in result.get_response().items() if key != "outputs"}
    return {
        **told,
        "types": {name: str(values.dtype) for name, values in found.items()},
        "probability": found["probability"].tolist(),
        "label": [each.decode() if isinstance(each, bytes) else each for each in found["label"]],
        "decision": found["decision"].tolist(),
    }


def _input(column: Any, binary: bool) -> Any:
    values = [row[column.name] for row in ROWS]
    if column.kind == "number":
        array = np.array(values, dtype=np.float64)  # None becomes NaN: missing
    else:
        array = np.array([value or "" for value in values], dtype=np.object_)
    tensor = triton.InferInput(column.name, [len(ROWS)], "FP64" if column.kind == "number" else "BYTES")
    return tensor.set_data_from_numpy(array, binary_data=binary)


def _refused(client: Any) -> tuple[str, str]:
    amount = triton.InferInput("Amount", [2], "FP64").set_data_from_numpy(np.array([1.0, np.inf]))
    try:
        client.infer(MODEL, [amount])
    except InferenceServerException as refused:
        return str(refused.status()), str(refused.message())
    raise AssertionError("infinity was taken")


if __name__ == "__main__":
    print(json.dumps(calls(sys.argv[1])))
