"""What an ONNX file may contain: the operators our compilers write, and numbers that lie in the file itself.

ONNX Runtime would take more: tensors kept in another file by a path the model names (external data), functions and
subgraphs of the model's own, operators of libraries. None of it is needed here, so none is read: the parts of the file
that could hold such things are parsed with protobuf, before the runtime gets a byte of it. The price: a compiler that
writes another operator has to name it below.

The messages are declared here and not imported, because the server has no `onnx`; field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from include.kernel.errors import ArtifactRejected

ALLOWED_OPERATORS = frozenset(
    {
        "Add",
        "Cast",
        "DynamicQuantizeLinear",
        "MatMul",
        "MatMulInteger",
        "Mul",
        "Relu",
        "Sigmoid",
        "ai.onnx.ml.TreeEnsembleClassifier",
    }
)
# message -> field -> (number, type); a type that is no message of this table is a scalar
MESSAGE_FIELDS = {
    "Model": {"graph": (7, "Graph"), "training_info": (20, "bytes"), "functions": (25, "bytes")},
    "Graph": {"node": (1, "Node"), "initializer": (5, "Tensor"), "sparse_initializer": (15, "bytes")},
    "Node": {"op_type": (4, "bytes"), "attribute": (5, "Attribute"), "domain": (7, "bytes")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "bytes"),
        "tensors": (10, "Tensor"),
        "graphs": (11, "bytes"),
        "sparse_tensor": (22, "bytes"),
        "sparse_tensors": (23, "bytes"),
    },
    "Tensor": {"external_data": (13, "bytes"), "data_location": (14, "int32")},
}
FORBIDDEN_FIELDS = {
    "training_info",
    "functions",
    "sparse_initializer",
    "g",
    "graphs",
    "sparse_tensor",
    "sparse_tensors",
}


def check(data: bytes) -> None:
    """Raises `ArtifactRejected` when the file asks for more than numbers in itself and the allowed operators."""
    from google.protobuf.message import DecodeError

    try:
        model = _build_message_class().FromString(data)
    except DecodeError as error:
        raise ArtifactRejected(
            "model.onnx cannot be read: it is not in the ONNX format; train the model again."
        ) from error
    for violation in _list_violations(model):
        raise ArtifactRejected(f"model.onnx {violation}, which is not allowed; train the model again.")


def _list_violations(message: Any) -> Iterator[str]:
    """Everything a message and those below it hold that they must not."""
    for field, values in message.ListFields():
        if field.name in FORBIDDEN_FIELDS:
            yield f"holds {field.name}"
        elif field.name == "external_data" or (field.name == "data_location" and any(values)):
            yield "keeps numbers in another file"
        elif field.name == "node":
            yield from (
                f"asks for the operator {name}" for name in map(_read_operator, values) if name not in ALLOWED_OPERATORS
            )
        if field.message_type is not None:
            for value in values:
                yield from _list_violations(value)


def _read_operator(node: Any) -> str:
    """domain.name; the standard domain has two names and is left out. Said twice, the last counts, as in protobuf."""
    domain, name = (b"".join(values[-1:]).decode("ascii", "replace") for values in (node.domain, node.op_type))
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


@cache
def _build_message_class() -> Any:
    """Every field is declared as repeated, so that one that comes twice is seen twice."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    file = FileDescriptorProto(name="onnx_trust.proto", package="onnx_trust")
    scalars = {"bytes": FieldDescriptorProto.TYPE_BYTES, "int32": FieldDescriptorProto.TYPE_INT32}
    for message, fields in MESSAGE_FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_REPEATED)
            field.type = scalars.get(kind, FieldDescriptorProto.TYPE_MESSAGE)
            if kind not in scalars:
                field.type_name = f".onnx_trust.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("onnx_trust.Model"))
