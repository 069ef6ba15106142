"""A serving directory as a release lays it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from include.model import artifact
from tests.unit import credit

Stage = Callable[..., str]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    model = credit.trained("boosting")
    artifact.save(model.pipeline, model.meta, directory)
    return directory


@pytest.fixture
def stage(source: Path, tmp_path: Path) -> Stage:
    """Stages the boosting model into a slot below tmp_path and answers its digest."""
    return partial(stage_in, tmp_path, source)


def stage_in(directory: Path, source: Path, slot: str, version: str = "3", generation: int = 5) -> str:
    digest = artifact.digest(source)
    artifact.copy_verified(source, directory / "artifacts", digest)
    (directory / "slots").mkdir(exist_ok=True)
    content = {"version": version, "digest": digest, "generation": generation}
    (directory / "slots" / f"{slot}.json").write_text(json.dumps(content))
    return digest
