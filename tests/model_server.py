"""A model server as a process of its own, holding the example's boosted trees in either form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx

from include.model import artifact, export
from include.model.artifact import ServableModel
from include.model.compiled import compiling
from tests import credit
from tests.ground import free_ports, wait_for

ROOT = Path(__file__).resolve().parents[1]
VERSION = "3"
Form = Literal["compiled", "generic", "exported"]  # as a training exports it, with what explains it


@contextmanager
def model_server(
    directory: Path, form: Form = "compiled", model: ServableModel | None = None, **told: str
) -> Iterator[str]:
    """The URL of a server that is ready. Its directory and its log lie below `directory`."""
    _stage(directory, form, model or credit.trained("boosting"))
    [port] = free_ports(1)
    environment = {
        **os.environ,
        "EVERGREEN_SLOT": "blue",
        "EVERGREEN_SERVING_DIR": str(directory),
        "EVERGREEN_PORT": str(port),
        "EVERGREEN_UNBLESSED": "allow",
        **told,
    }
    url = f"http://127.0.0.1:{port}"
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "include.serving"], cwd=ROOT, env=environment, stderr=log)
    try:
        wait_for(lambda: server.poll() is not None or httpx.get(f"{url}/ready", trust_env=False).is_success)
        assert server.poll() is None, (directory / "server.log").read_text()
        yield url
    finally:
        server.kill()
        server.wait()


def _stage(directory: Path, form: Form, model: ServableModel) -> None:
    source = directory / "source"
    if form == "compiled":
        digest = artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, source)
    elif form == "exported":
        source.mkdir()
        digest = export.write(model, source, credit.rows()[:200]).digest
    else:
        digest = artifact.save(model.pipeline, model.meta, source)
    artifact.copy_verified(source, directory / "artifacts", digest)
    (directory / "slots").mkdir()
    (directory / "slots" / "blue.json").write_text(json.dumps({"version": VERSION, "digest": digest, "generation": 1}))
