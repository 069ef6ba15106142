"""From a fitted pipeline to what the server runs: an encoding (data) and a model file for a compiled runtime.

    logistic         ONNX, float64        two operators, so the compiled form is exact
    torch network    ONNX, float32        as it was trained; also as INT8
    random forest    ONNX, float32        by skl2onnx; scikit-learn's trees read float32 too
    boosting         treelite, float64    skl2onnx 1.20 cannot convert the boosting of scikit-learn 1.9

Matrix models are written operator by operator rather than exported by torch: three kinds of nodes, the same bytes every
time, and no trace of the machine's paths in the file. The price: another kind of layer has to be added here.
A pipeline that is none of these raises `NotCompilable`, and the generic path serves it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.model.compiled.encoding import Categories, Encoding, Numbers
from include.model.compiled.runtimes import INPUT, OUTPUT, Runtime

OPSET_VERSION, ML_OPSET_VERSION, IR_VERSION = 17, 3, 8  # read by every ONNX Runtime since 1.12
TOLERANCE, TORCH_TOLERANCE = 1e-6, 1e-5
Layer = tuple[NDArray[Any], NDArray[Any]]


class NotCompilable(Exception):
    """Why a pipeline has no compiled form: a clause that ends a sentence."""


@dataclass(frozen=True)
class CompiledForm:
    """`data` is the model file; `tolerance` is how far a probability may lie from the pipeline's."""

    runtime: Runtime
    data: bytes
    encoding: Encoding
    tolerance: float = TOLERANCE


def compile_pipeline(pipeline: Any) -> CompiledForm:
    """The compiled form of a Pipeline of "prepare" (ColumnTransformer) and "model". Raises `NotCompilable`."""
    steps = getattr(pipeline, "steps", [])
    if [name for name, _ in steps] != ["prepare", "model"]:
        raise NotCompilable("it is not made of the two steps prepare and model")
    model = steps[1][1]
    for kind in type(model).__mro__:
        if kind.__name__ in COMPILERS:
            return COMPILERS[kind.__name__](model, build_encoding(steps[0][1]))
    raise NotCompilable(f"{type(model).__name__} has no compiled form")


def build_encoding(prepare: Any) -> Encoding:
    """What a fitted ColumnTransformer of `pipelines` does to its columns, as data. Raises `NotCompilable`."""
    numbers, categories = Numbers(), Categories()
    for name, fitted, columns in prepare.transformers_:
        if name == "numbers":
            numbers = _build_numbers(fitted, [str(column) for column in columns])
        elif name == "categories":
            categories = _build_categories(fitted, [str(column) for column in columns])
        elif fitted != "drop":
            raise NotCompilable(f"the columns of {name!r} are prepared in a way that is not known as data")
    return Encoding(numbers=numbers, categories=categories)


def _build_numbers(fitted: Any, names: list[str]) -> Numbers:
    tables: dict[str, Any] = {"names": names}
    for step in getattr(fitted, "steps", [("", fitted)]):
        kind = type(step[1]).__name__
        if kind not in NUMBER_STEPS:
            raise NotCompilable(f"{kind} is not known as data")
        tables |= NUMBER_STEPS[kind](step[1], tables)
    return Numbers(**{name: np.asarray(values).tolist() for name, values in tables.items()})


def _read_imputer(imputer: Any, _: dict[str, Any]) -> dict[str, Any]:
    indicators = imputer.indicator_.features_ if imputer.add_indicator else []
    return {"fill": imputer.statistics_, "indicators": indicators}


def _read_clipper(scaler: Any, _: dict[str, Any]) -> dict[str, Any]:
    """(value - min) / range held between 0 and 1, as: held between min and max, then shifted and scaled."""
    width = 1 / scaler.scale_
    return {"low": scaler.data_min_, "high": scaler.data_min_ + width, "shift": scaler.data_min_, "scale": width}


def _read_scaler(scaler: Any, before: dict[str, Any]) -> dict[str, Any]:
    """After ((x - a) / b - c) / d stands (x - (a + b c)) / (b d)."""
    shift, scale = before.get("shift", 0.0), before.get("scale", 1.0)
    return {"shift": shift + scale * scaler.mean_, "scale": scale * scaler.scale_}


NUMBER_STEPS: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "FunctionTransformer": lambda step, _: (
        {} if step.func is None else _refuse_function(step)
    ),  # what "passthrough" becomes
    "MinMaxScaler": _read_clipper,
    "SimpleImputer": _read_imputer,
    "StandardScaler": _read_scaler,
}


def _refuse_function(step: Any) -> dict[str, Any]:
    raise NotCompilable(f"{type(step).__name__} calls a function")


def _build_categories(encoder: Any, names: list[str]) -> Categories:
    style = {"OneHotEncoder": "onehot", "OrdinalEncoder": "ordinal"}.get(type(encoder).__name__)
    plain = all(getattr(encoder, name, None) is None for name in ("drop", "min_frequency", "max_categories"))
    if style is None or not plain:
        raise NotCompilable(f"this {type(encoder).__name__} is not known as data")
    values = {
        name: [_convert_category(value) for value in found]
        for name, found in zip(names, encoder.categories_, strict=True)
    }
    return Categories(style=style, values=values)


def _convert_category(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _compile_logistic(model: Any, encoding: Encoding) -> CompiledForm:
    return CompiledForm("onnx", build_matrix_model([(model.coef_.T, model.intercept_)]), encoding)


def _compile_network(model: Any, encoding: Encoding) -> CompiledForm:
    from include.model.network import read_layers

    narrow = encoding.model_copy(update={"dtype": "float32"})
    return CompiledForm("onnx", build_matrix_model(read_layers(model)), narrow, TORCH_TOLERANCE)


def _compile_forest(model: Any, encoding: Encoding) -> CompiledForm:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    inputs = [(INPUT, FloatTensorType([None, encoding.width]))]
    opsets, options = {"": OPSET_VERSION, "ai.onnx.ml": ML_OPSET_VERSION}, {id(model): {"zipmap": False}}
    onnx_model = convert_sklearn(model, "forest", inputs, target_opset=opsets, options=options)
    return CompiledForm(
        "onnx", onnx_model.SerializeToString(deterministic=True), encoding.model_copy(update={"dtype": "float32"})
    )


def _compile_boosting(model: Any, encoding: Encoding) -> CompiledForm:
    import treelite.sklearn

    return CompiledForm("treelite", bytes(treelite.sklearn.import_model(model).serialize_bytes()), encoding)


COMPILERS: dict[str, Callable[[Any, Encoding], CompiledForm]] = {
    "HistGradientBoostingClassifier": _compile_boosting,
    "LogisticRegression": _compile_logistic,
    "NeuralNetBinaryClassifier": _compile_network,
    "RandomForestClassifier": _compile_forest,
}


def build_matrix_model(layers: Sequence[Layer]) -> bytes:
    """ONNX: each layer is x W + b, between two a ReLU, at the end a sigmoid. Weights (in, out), biases (out,)."""
    from onnx import checker, helper, numpy_helper

    nodes, tables, name = [], [], INPUT
    for position, (weight, bias) in enumerate(layers):
        is_last = position == len(layers) - 1
        tables += [numpy_helper.from_array(weight, f"w{position}"), numpy_helper.from_array(bias, f"b{position}")]
        nodes.append(helper.make_node("MatMul", [name, f"w{position}"], [f"m{position}"]))
        nodes.append(helper.make_node("Add", [f"m{position}", f"b{position}"], [f"a{position}"]))
        name = OUTPUT if is_last else f"r{position}"
        nodes.append(helper.make_node("Sigmoid" if is_last else "Relu", [f"a{position}"], [name]))
    kind, width = helper.np_dtype_to_tensor_dtype(layers[0][0].dtype), layers[0][0].shape[0]
    ends = [helper.make_tensor_value_info(*end) for end in ((INPUT, kind, [None, width]), (OUTPUT, kind, [None, 1]))]
    graph = helper.make_graph(nodes, "layers", [ends[0]], [ends[1]], tables)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET_VERSION)], ir_version=IR_VERSION)
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def quantize_model(model: CompiledForm) -> CompiledForm:
    """The same ONNX model with weights and activations as 8-bit integers (dynamic quantization, ONNX Runtime).

    Raises `NotCompilable` when the model is no network, whose weights alone are worth it.
    """
    if model.tolerance != TORCH_TOLERANCE:
        raise NotCompilable("it is no network")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before.onnx", Path(scratch) / "after.onnx"
        before.write_bytes(model.data)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        return replace(model, data=after.read_bytes())
