"""The same training in two processes is the same artifact, byte by byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.model.pipelines import BUILDERS

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import sys
from pathlib import Path
from include.model import artifact, export
from tests import credit
model, place = credit.trained(sys.argv[1]), Path(sys.argv[2])
place.mkdir()
print(export.write(model, place, credit.rows()[:200]).digest)
if sys.argv[1] != "torch_mlp":
    print(artifact.save(model.pipeline, model.meta, place / "generic"))
"""


def digests_of_another_process(kind: str, place: Path, hash_seed: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", TRAIN, kind, str(place)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return ended.stdout.split()


@pytest.mark.parametrize("kind", BUILDERS)
def test_two_processes_that_train_the_same_write_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first = digests_of_another_process(kind, tmp_path / "first", "1")
    second = digests_of_another_process(kind, tmp_path / "second", "2")
    assert first == second and {len(digest) for digest in first} == {64}
