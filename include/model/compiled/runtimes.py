"""The two runtimes of compiled models: ONNX Runtime for matrices and forests, treelite for boosting.

Both files are tables of numbers that a fixed interpreter walks; neither can name code to run, and what else an ONNX
file could ask for is refused before the runtime sees it (see onnx_trust). Each runtime is imported
when a model needs it. One thread: a row takes microseconds, and the slots share their cores with each other.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from include.kernel.errors import ArtifactRejected

Runtime = Literal["onnx", "treelite"]
Score = Callable[[NDArray[Any]], NDArray[np.float64]]
MODEL_FILES: dict[Runtime, str] = {"onnx": "model.onnx", "treelite": "model.treelite"}
INPUT, OUTPUT = "features", "probabilities"


def open_model(runtime: Runtime, data: bytes, width: int) -> Score:
    """A function from a matrix (n, width) to the score of the positive class (n,). Raises `ArtifactRejected`."""
    return OPENERS[runtime](data, width)


def _open_onnx(data: bytes, width: int) -> Score:
    import onnxruntime as ort

    from include.model.integrity import onnx_allowlist

    onnx_allowlist.check(data)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not the runtime's own flatbuffer
    options.log_severity_level = 4  # what is wrong with a file is said once, by us
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base class
        raise ArtifactRejected(f"model.onnx cannot be read: {str(error).splitlines()[0]}") from error
    [asked], offered = session.get_inputs(), [output.name for output in session.get_outputs()]
    if asked.name != INPUT or OUTPUT not in offered or asked.shape[-1] != width:
        raise ArtifactRejected(f"model.onnx does not read {width} {INPUT} and answer {OUTPUT}; train the model again.")

    def score(matrix: NDArray[Any]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = session.run([OUTPUT], {INPUT: matrix})[0][:, -1].astype(np.float64)
        return found

    return score


def _open_treelite(data: bytes, width: int) -> Score:
    import treelite

    try:
        model = treelite.Model.deserialize_bytes(data)
    except Exception as error:  # treelite raises its own and numpy's
        raise ArtifactRejected(f"model.treelite cannot be read: {str(error).splitlines()[0]}") from error
    if model.num_feature != width:
        raise ArtifactRejected(f"model.treelite reads {model.num_feature} features instead of {width}; train it again.")
    _check_output(model)
    _check_bounds(model)
    return _build_tree_score(model, width)


def _build_tree_score(model: Any, width: int) -> Score:
    """treelite's own C function with a configuration made once: `gtil.predict` makes one at each call, through JSON,
    which for one row takes 49 us instead of 16. What it checks each time is checked here and in `_check_output`."""
    from treelite.core import _LIB, _check_call
    from treelite.gtil.gtil import GTILConfig

    config = GTILConfig(predict_type="default", nthread=1)

    def score(matrix: NDArray[Any]) -> NDArray[np.float64]:
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"the model reads {width} features, and these rows have the shape {rows.shape}")
        found = np.empty(len(rows))
        source, target = ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(found.ctypes.data)
        count = ctypes.c_uint64(len(rows))
        _check_call(_LIB.TreeliteGTILPredict(model.handle, source, b"float64", count, target, config.handle))
        return found

    return score


def _check_output(model: Any) -> None:
    """One number a row, in double precision: whatever else a file asks for would be written behind the answer's end."""
    header = model.get_header_accessor()
    one = all((header.get_field(name) == 1).all() for name in ("num_target", "num_class", "leaf_vector_shape"))
    first = all((header.get_field(name) == 0).all() for name in ("target_id", "class_id"))
    if not (one and first and (model.input_type, model.output_type) == ("float64", "float64")):
        raise ArtifactRejected("model.treelite does not answer one probability for each row; train it again.")


def _check_bounds(model: Any) -> None:
    """A tree's nodes are indices that compiled code follows unchecked: children lie inside and behind their parent."""
    for position in range(model.num_tree):
        tree = model.get_tree_accessor(position)
        left, right, asked = (tree.get_field(name).astype(np.int64) for name in ("cleft", "cright", "split_index"))
        inner = left != -1
        parents, children = np.arange(len(left))[inner], np.stack([left[inner], right[inner]])
        inside = (children > parents).all() and (children < len(left)).all() if len(parents) else True
        known = (asked[inner] >= 0).all() and (asked[inner] < model.num_feature).all()
        single = len(tree.get_field("leaf_vector")) == 0
        if not (len(left) and inside and known and single):
            raise ArtifactRejected("model.treelite holds a tree whose nodes point outside of it; train it again.")


OPENERS: dict[Runtime, Callable[[bytes, int], Score]] = {"onnx": _open_onnx, "treelite": _open_treelite}
