"""What an ONNX file may contain, tried with files the ONNX library itself makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from include.kernel.errors import ArtifactRejected
from include.model.compiled import compiling, runtimes
from include.model.integrity import onnx_allowlist
from tests import credit

LAYERS = [(np.eye(3, 1), np.zeros(1))]


def made() -> onnx.ModelProto:
    return onnx.load_from_string(compiling.build_matrix_model(LAYERS))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def external_in_an_attribute(model: onnx.ModelProto) -> None:
    hidden = numpy_helper.from_array(np.zeros(1), "hidden")
    hidden.data_location = TensorProto.EXTERNAL
    model.graph.node[0].attribute.append(helper.make_attribute("value", hidden))


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.ops"


def contributed_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "FusedMatMul"


def subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", model.graph))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("ours", "f", ["a"], ["b"], [], []))


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[2].op_type = "Loop"


EDITS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "keeps numbers in another file": external,
    "keeps numbers in another file, ": external_in_an_attribute,
    "asks for the operator evil.ops.MatMul": custom_operator,
    "asks for the operator com.microsoft.FusedMatMul": contributed_operator,
    "asks for the operator Loop": other_operator,
    "holds g": subgraph,
    "holds functions": function,
}


@pytest.mark.parametrize("says", EDITS)
def test_an_edited_file_is_refused_with_what_it_asks_for(says: str) -> None:
    model = made()
    EDITS[says](model)
    with pytest.raises(ArtifactRejected, match=f"^model.onnx {says.rstrip(', ')}, which is not allowed"):
        runtimes.open_model("onnx", model.SerializeToString(), 3)


def test_a_second_graph_hidden_behind_a_harmless_one_is_seen() -> None:
    """Protobuf merges a field that comes twice, so appended bytes become part of the model."""
    more = onnx.ModelProto()
    more.graph.node.append(helper.make_node("Loop", [], []))
    with pytest.raises(ArtifactRejected, match="operator Loop"):
        onnx_allowlist.check(made().SerializeToString() + more.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"no model", b"ORTM" + b"\0" * 64, b"\x80\x04cos\nsystem\n."])
def test_what_is_no_onnx_model_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactRejected, match=r"^model\.onnx cannot be read"):
        runtimes.open_model("onnx", data, 3)


@pytest.mark.parametrize("kind", ["logistic", "random_forest", "torch_mlp"])
def test_what_our_compilers_write_is_allowed(kind: str, tmp_path: Path) -> None:
    form = compiling.compile_pipeline(credit.trained(kind).pipeline)
    onnx_allowlist.check(form.data)
    if kind == "torch_mlp":
        onnx_allowlist.check(compiling.quantize_model(form).data)
