"""A serving directory as a release lays it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from include.kernel.files import write_atomic
from include.model import artifact
from include.model.blessing.blessing import compute_envelope_digest
from tests import blessed, credit

Stage = Callable[..., str]


def bless(place: Path, key: Ed25519PrivateKey = blessed.KEY, **changes: Any) -> str:
    """Puts a signed blessing of the model `credit` into blessings/ and answers its hash."""
    envelope = blessed.envelope(blessed.document(**{"model": "credit", **changes}), key)
    paper = compute_envelope_digest(envelope)
    write_atomic(place / "blessings" / f"{paper}.json", envelope)
    return paper


def point(place: Path, slot: str = "blue", **content: Any) -> None:
    """The slot's file."""
    write_atomic(place / "slots" / f"{slot}.json", json.dumps({"version": "3", "generation": 5, **content}))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    model = credit.trained("boosting")
    artifact.save(model.pipeline, model.meta, directory)
    return directory


@pytest.fixture
def stage(source: Path, tmp_path: Path) -> Stage:
    """Stages the boosting model, blessed by the tests' key, into a slot below tmp_path and answers its digest."""
    return partial(stage_in, tmp_path, source)


def stage_in(directory: Path, source: Path, slot: str, version: str = "3", generation: int = 5) -> str:
    digest = artifact.compute_digest(source)
    artifact.copy_verified(source, directory / "artifacts", digest)
    paper = bless(directory, version=version, digest=digest)
    point(directory, slot, version=version, digest=digest, generation=generation, blessing=paper)
    return digest
