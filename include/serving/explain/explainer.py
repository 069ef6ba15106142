"""The explainer's process: shap lives here, so that its 300 MB and four seconds are not the model server's.

`python -m include.serving.explain.explainer <fd> <artifact> <digest>`: one end of a socket pair, inherited. Messages
are JSON behind their length (4 bytes, big endian), answered in order. It reads the artifact as a slot does, by its
digest, and explains the golden rows before it says that it is ready: an explainer that does not add up never gets a
question.

It ends with its server, however that ended: by the end of the socket, and while it is importing or calculating by the
kernel's signal. If memory runs out, the kernel is told to take this process first.
"""

import ctypes
import logging
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from include.kernel.blocked_imports import block_imports
from include.kernel.errors import Permanent
from include.serving.log import json_lines

LENGTH = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
UNNEEDED_MODULES = (
    "IPython",
    "matplotlib",
    "pytest",
    "torch",
)  # shap and scikit-learn import them where they are installed
log = logging.getLogger(__name__)


def pack(message: Any) -> bytes:
    body = to_json(message)
    return LENGTH.pack(len(body)) + body


def serve_explanations(fd: int, directory: Path, digest: str) -> None:
    with socket.socket(fileno=fd) as channel, channel.makefile("rb") as questions:
        _bind_to_server()
        try:
            explain = _load_explainer(directory, digest)
        except Permanent as error:  # anything else ends this process, and the server starts another one
            log.exception("the model cannot be explained")
            return channel.sendall(pack({"refused": str(error)}))
        channel.sendall(pack({"ready": True}))
        while header := questions.read(LENGTH.size):
            body = questions.read(LENGTH.unpack(header)[0])
            channel.sendall(pack(_answer(explain, body)))


def _load_explainer(directory: Path, digest: str) -> Any:
    with block_imports(UNNEEDED_MODULES):
        from include.model import artifact
        from include.model.explanation import attribution, explanation
        from include.model.integrity import artifact_integrity

        files = artifact_integrity.read_verified(directory, digest)
        model = artifact.open_artifact(files)
        explain, document = attribution.build_explainer(files, model), explanation.read(files)
        assert document  # without one there is no explainer
        rows = [golden.row for golden in model.meta.golden] or [{}]
        attribution.build_explanations(document, model.meta, explain(rows), model.predict_proba(rows).tolist())
    return explain


def _answer(explain: Any, body: bytes) -> dict[str, Any]:
    try:
        attributed = explain(from_json(body))
        return {
            "base": attributed.base,
            "contributions": attributed.contributions.tolist(),
            "score": attributed.score.tolist(),
        }
    except Exception as error:  # only its type is told, for its text may hold values of the row
        log.error("a row cannot be explained: %s", type(error).__name__)
        return {"failed": f"The row cannot be explained: {type(error).__name__}; train it again or report it."}


def _bind_to_server() -> None:
    server = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it ended before the kernel was told
        sys.exit()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        log.info("the kernel's choice when memory runs out stays as it is")


if __name__ == "__main__":
    json_lines.configure(process="explainer")
    serve_explanations(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
