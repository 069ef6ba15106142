from pathlib import Path
from typing import Any

import pytest
import yaml

from include.manifest import DEFAULT_PATH
from include.model import artifact
from include.model.blessing.blessing import render_public_pem
from include.serving.settings import Settings
from include.serving.slot import contents as slots
from include.serving.slot.admission import Admission
from include.serving.slot.contents import Broken, Empty, Loaded, Slot
from include.serving.wiring import open_service
from tests import blessed, credit
from tests.serving.conftest import bless, point

TRUSTING = Admission(keys=render_public_pem(blessed.KEY))


def load(place: Path, colour: str) -> Slot:
    return slots.load(place, colour, TRUSTING)


def test_a_staged_slot_is_loaded(stage: Any, tmp_path: Path) -> None:
    digest = stage("blue")
    slot = load(tmp_path, "blue")
    assert isinstance(slot, Loaded)
    assert (slot.file.version, slot.file.digest, slot.file.generation) == ("3", digest, 5)


def test_no_slot_file_is_an_empty_slot(tmp_path: Path) -> None:
    assert isinstance(load(tmp_path, "green"), Empty)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"version": 3, "digest": "%s", "generation": 1}' % ("a" * 64),
        '{"version": "3", "digest": "../../etc", "generation": 1}',
        '{"version": "3\\r\\nx: y", "digest": "%s", "generation": 1}' % ("a" * 64),
        '{"version": "3\\n", "digest": "%s", "generation": 1}' % ("a" * 64),
    ],
)
def test_a_slot_file_that_is_not_one_breaks_the_slot_and_nothing_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "blue.json").write_text(content)
    slot = load(tmp_path, "blue")
    assert isinstance(slot, Broken) and "blue.json cannot be read" in slot.why


def test_an_artifact_that_is_not_there_is_said(tmp_path: Path) -> None:
    _release(tmp_path, "0" * 64)
    slot = load(tmp_path, "blue")
    assert isinstance(slot, Broken) and slot.why.startswith("There is no artifact at")


def test_a_tampered_artifact_is_not_loaded(stage: Any, tmp_path: Path) -> None:
    digest = stage("blue")
    with (tmp_path / "artifacts" / digest / "artifact.json").open("a") as file:
        file.write(" ")
    slot = load(tmp_path, "blue")
    assert isinstance(slot, Broken) and slot.why.endswith("stage it again.")
    assert slot.file and slot.file.version == "3"


def test_a_model_that_misses_its_golden_rows_is_not_served(tmp_path: Path) -> None:
    model = credit.trained("logistic")
    wrong = model.meta.golden[0].model_copy(update={"probability": 0.999})
    source = tmp_path / "source"
    digest = artifact.save(model.pipeline, model.meta.model_copy(update={"golden": (wrong,)}), source)
    artifact.copy_verified(source, tmp_path / "artifacts", digest)
    _release(tmp_path, digest)
    slot = load(tmp_path, "blue")
    assert isinstance(slot, Broken) and slot.why.startswith("The model misses its golden rows by")


def test_the_blessing_that_allowed_a_release_is_held_and_one_that_is_no_hash_is_refused(stage, tmp_path):
    digest = stage("blue")
    slot = load(tmp_path, "blue")
    assert slot.blessing and (slot.blessing.digest, slot.blessing.model) == (digest, "credit")
    point(tmp_path, digest=digest, blessing="yes")
    assert "blue.json cannot be read" in load(tmp_path, "blue").why


def _release(place: Path, digest: str) -> None:
    point(place, digest=digest, blessing=bless(place, version="3", digest=digest))


@pytest.mark.parametrize(("generation", "kept"), [(4, "2"), (6, None)])
def test_the_fallback_is_the_version_an_earlier_release_left_in_the_other_slot(
    generation: int, kept: str | None, stage: Any, tmp_path: Path
) -> None:
    stage("blue", "3", 5)
    stage("green", "2", generation)
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["serving"]["fallback"] = "previous"
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(content))
    told = {"slot": "blue", "serving_dir": tmp_path, "port": 0, "manifest": tmp_path / "pipeline.yaml"}
    previous = open_service(Settings.model_validate(told)).current_model.previous
    assert (previous.file.version if previous else None) == kept


def test_a_manifest_that_cannot_be_read_breaks_the_slot_with_its_sentence(stage: Any, tmp_path: Path) -> None:
    stage("blue")
    (tmp_path / "pipeline.yaml").write_text("serving: {deadline: 1}")
    told = {"slot": "blue", "serving_dir": tmp_path, "port": 0, "manifest": tmp_path / "pipeline.yaml"}
    slot = open_service(Settings.model_validate(told)).current_model.slot
    assert isinstance(slot, Broken) and "serving.deadline is not a known setting" in slot.why


def test_an_empty_slot_file_is_an_empty_slot(tmp_path: Path) -> None:
    """A kubelet writes one where the annotation it is made of is not there."""
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "blue.json").write_text("")
    assert isinstance(load(tmp_path, "blue"), Empty)
