"""What a slot refuses to load, each time by one sentence and before anything could run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from include.kernel.files import write_atomic
from include.model import artifact
from include.model.blessing.blessing import render_public_pem
from include.model.compiled import compiling, runtimes
from include.model.integrity import skops_allowlist
from include.serving.slot import contents as slots
from include.serving.slot.admission import Admission
from include.serving.slot.contents import Broken, Loaded
from tests import blessed, credit
from tests.blessed import KEY, OTHER_KEY
from tests.model.test_onnx_trust import EDITS, made
from tests.serving.conftest import bless, point

TRUSTING = Admission(keys=render_public_pem(KEY))


def why(place: Path, admission: Admission = TRUSTING) -> str:
    """The sentence of a slot that must be broken."""
    slot = slots.load(place, "blue", admission)
    assert isinstance(slot, Broken)
    assert "\n" not in slot.why and slot.why.endswith(".")
    return slot.why


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a model file that reaches a parser is a failure of the test."""

    def parsed(*_: Any) -> None:
        raise AssertionError("a model file was parsed")

    monkeypatch.setattr(skops_allowlist, "read", parsed)
    monkeypatch.setattr(runtimes, "OPENERS", {"onnx": parsed, "treelite": parsed})


class TestBlessing:
    """The artifact is whole and its digest right: what is wrong is who allowed it."""

    @pytest.fixture(autouse=True)
    def staged(self, stage: Callable[..., str], tmp_path: Path, no_runtime: None) -> None:
        self.place, self.digest = tmp_path, stage("blue")

    def named(self, paper: str | None) -> str:
        point(self.place, digest=self.digest, blessing=paper)
        return why(self.place)

    def test_a_release_that_names_no_blessing(self) -> None:
        assert self.named(None) == "The slot's file names no blessing of version 3; deploy the version again."

    def test_a_blessing_that_is_not_there(self) -> None:
        assert self.named("e" * 64).startswith("The blessing eeee")

    def test_a_blessing_that_is_no_signed_document(self) -> None:
        write_atomic(self.place / "blessings" / f"{'e' * 64}.json", json.dumps({"digest": self.digest}))
        assert "is no signed blessing" in self.named("e" * 64)

    def test_an_endless_blessing(self) -> None:
        (self.place / "blessings" / f"{'e' * 64}.json").symlink_to("/dev/zero")
        assert "is no signed blessing" in self.named("e" * 64)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"digest": "8" * 64}, "but its blessing is of 888888888888"),
            ({"version": "4"}, "carries the blessing of version 4"),
            ({"intent": "rehearsal"}, "comes from a rehearsal training"),
            ({"key": OTHER_KEY}, f"blessed by key {blessed.keyid(OTHER_KEY)}, and trusted is {blessed.keyid(KEY)}"),
        ],
    )
    def test_a_blessing_of_something_else_or_by_somebody_else(self, changes: dict[str, Any], says: str) -> None:
        paper = bless(self.place, **{"version": "3", "digest": self.digest, **changes})
        assert says in self.named(paper)

    def test_a_blessing_whose_text_was_changed_after_it_was_signed(self) -> None:
        good = json.loads(blessed.envelope(blessed.document(model="credit", version="4", digest=self.digest)))
        changed = json.loads(blessed.envelope(blessed.document(model="credit", version="3", digest=self.digest)))
        paper = "a" * 64
        write_atomic(
            self.place / "blessings" / f"{paper}.json",
            json.dumps({**changed, "signatures": good["signatures"]}),
        )
        assert "it was altered" in self.named(paper)

    def test_a_blessing_under_the_hash_of_another(self) -> None:
        paper = bless(self.place, version="3", digest=self.digest)
        shutil.copy(self.place / "blessings" / f"{paper}.json", self.place / "blessings" / f"{'b' * 64}.json")
        assert "names another blessing" in self.named("b" * 64)

    def test_a_blessing_of_another_model_of_the_same_signer(self) -> None:
        assert "The artifact is of the model credit, and allowed here is fraud" in self.named(
            bless(self.place, model="fraud", version="3", digest=self.digest)
        )
        point(self.place, digest=self.digest, blessing=bless(self.place, version="3", digest=self.digest))
        said = why(self.place, Admission(keys=render_public_pem(KEY), model="fraud"))
        assert said.startswith("Version 3 of fraud carries the blessing of version 3 of credit")

    def test_every_key_is_refused_by_a_server_without_keys(self) -> None:
        assert why(self.place, Admission()).startswith("This server trusts no key, so it loads nothing")

    def test_allowing_the_unblessed_has_no_effect_once_a_key_is_trusted(self) -> None:
        point(self.place, digest=self.digest)
        assert "names no blessing" in why(self.place, Admission(keys=render_public_pem(KEY), unblessed="allow"))

    @pytest.mark.parametrize("content", [None, b"", b"no key", b"\xff\xfe"])
    def test_keys_that_cannot_be_read_allow_nothing(self, content: bytes | None) -> None:
        path = self.place / "trusted.pem"
        if content is not None:
            path.write_bytes(content)
        why(self.place, Admission(keys_file=path, unblessed="allow"))


class TestKeys:
    def test_without_a_key_the_word_that_allows_it_is_in_the_log(self, stage: Any, tmp_path: Path, caplog: Any) -> None:
        stage("blue")
        slot = slots.load(tmp_path, "blue", Admission(unblessed="allow"))
        assert isinstance(slot, Loaded) and slot.blessing is None
        assert "without a look at its blessing: EVERGREEN_UNBLESSED=allow" in caplog.text

    def test_a_key_that_is_added_to_the_file_counts_at_the_next_load(self, stage: Any, tmp_path: Path) -> None:
        stage("blue")
        path = tmp_path / "trusted.pem"
        path.write_text(render_public_pem(OTHER_KEY))
        admission = Admission(keys_file=path)
        assert blessed.keyid(OTHER_KEY) in why(tmp_path, admission)
        path.write_text(render_public_pem(OTHER_KEY) + render_public_pem(KEY))
        assert isinstance(slots.load(tmp_path, "blue", admission), Loaded)


class TestFiles:
    """The blessing is good; what lies in the artifact's place is not what it was given for."""

    @pytest.fixture(autouse=True)
    def staged(self, stage: Callable[..., str], tmp_path: Path) -> None:
        self.place = tmp_path
        self.artifact = tmp_path / "artifacts" / stage("blue")

    @pytest.mark.parametrize("name", ["artifact.json", "model.skops"])
    def test_a_changed_byte_is_found_before_anything_is_parsed(self, name: str, no_runtime: None) -> None:
        path = self.artifact / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert "has the digest" in why(self.place)

    def test_an_added_file_is_found(self, no_runtime: None) -> None:
        (self.artifact / "model.onnx").write_bytes(made().SerializeToString())
        assert "has the digest" in why(self.place)

    def test_a_link_in_the_artifact_or_instead_of_it_is_refused(self, no_runtime: None) -> None:
        elsewhere = self.place / "elsewhere"
        self.artifact.rename(elsewhere)
        self.artifact.symlink_to(elsewhere)
        assert why(self.place).endswith("is a symbolic link; stage the release again.")
        self.artifact.unlink()
        elsewhere.rename(self.artifact)
        (self.artifact / "model.skops").rename(elsewhere)
        (self.artifact / "model.skops").symlink_to(elsewhere)
        assert "holds a symbolic link, model.skops" in why(self.place)


WAYS_OUT = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "..%2fx",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "a/b",
    "a\\b",
    "",
    "3\n",
    "\x00",
]


@pytest.mark.parametrize("field", ["version", "digest", "blessing"])
@pytest.mark.parametrize("value", WAYS_OUT)
def test_no_name_in_the_slots_file_leads_out_of_its_place(field: str, value: str, stage: Any, tmp_path: Path) -> None:
    stage("blue")
    known = json.loads((tmp_path / "slots" / "blue.json").read_text())
    point(tmp_path, **{**known, field: value})
    assert why(tmp_path) == "The slot file blue.json cannot be read; stage the release again."


class Gadget:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _joblib(place: Path, gadget: Gadget) -> None:
    import joblib

    joblib.dump(gadget, place / "model.skops")


def _pickle(place: Path, gadget: Gadget) -> None:
    (place / "model.skops").write_bytes(pickle.dumps(gadget))


def _pickle_beside(place: Path, gadget: Gadget) -> None:
    """A stray file, also one that some loader might prefer."""
    (place / "model.pkl").write_bytes(pickle.dumps(gadget))
    (place / "model.skops").unlink()


def _skops_list_edited(place: Path, gadget: Gadget) -> None:
    """The file's own schema asks for os.system, with the trusted types a client might read from it."""
    schema = {
        "__class__": "system",
        "__module__": "os",
        "__loader__": "ReduceNode",
        "__id__": 1,
        "__reduce__": {
            "args": {
                "__loader__": "JsonNode",
                "__class__": "str",
                "__module__": "builtins",
                "content": f'"touch {gadget.marker}"',
            }
        },
        "trusted": ["os.system"],
        "protocol": 2,
    }
    _archive(place, schema, {})


def _pickle_in_an_array(place: Path, gadget: Gadget) -> None:
    """An .npy of objects is a pickle."""
    schema = {
        "__class__": "ndarray",
        "__module__": "numpy",
        "__loader__": "NdArrayNode",
        "__id__": 1,
        "type": "numpy",
        "file": "1.npy",
        "protocol": 2,
    }
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(127) + b"\n"
    _archive(place, schema, {"1.npy": header + pickle.dumps([gadget])})


def _archive(place: Path, schema: dict[str, Any], files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(place / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        for name, data in files.items():
            archive.writestr(name, data)


def _features_by_name(place: Path, gadget: Gadget) -> None:
    """The feature function is a name; only functions of this project may be called by it."""
    gadget.marker.with_suffix(".py").write_text(f"open({str(gadget.marker)!r}, 'w')\n")
    sys.path.insert(0, str(gadget.marker.parent))
    meta = json.loads((place / "artifact.json").read_text())
    (place / "artifact.json").write_text(json.dumps({**meta, "features": f"{gadget.marker.stem}:run"}))


GADGETS = [_joblib, _pickle, _pickle_beside, _skops_list_edited, _pickle_in_an_array, _features_by_name]


@pytest.mark.parametrize("put", GADGETS, ids=lambda put: put.__name__.strip("_"))
def test_not_even_a_blessed_gadget_runs(put: Callable[[Path, Gadget], None], source: Path, tmp_path: Path) -> None:
    """A signer who was fooled, or a server that asks for no blessing: the formats alone must hold."""
    marker, place = tmp_path / "marker", tmp_path / "bad"
    shutil.copytree(source, place)
    put(place, Gadget(marker))
    print(why(_released(place, tmp_path)))
    assert not marker.exists()


def test_the_gadget_of_these_tests_does_run_where_pickle_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Gadget(marker)))
    assert marker.exists()


@pytest.mark.parametrize("edit", EDITS.values(), ids=lambda edit: edit.__name__)
def test_a_blessed_onnx_file_that_asks_for_more_than_numbers_is_refused(
    edit: Callable[..., None], tmp_path: Path
) -> None:
    form = compiling.compile_pipeline(credit.trained("logistic").pipeline)
    model = onnx.load_from_string(form.data)
    edit(model)
    place = tmp_path / "bad"
    artifact.save_compiled(form, credit.trained("logistic").meta, place)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    assert "which is not allowed; train the model again." in why(_released(place, tmp_path))


class TestOtherLibraries:
    """A pipeline fitted by another scikit-learn; a compiled one does not ask."""

    @pytest.fixture(params=["1.2.0", "0.24.2", "1.10.0"])
    def place(self, request: Any, tmp_path: Path) -> Path:
        model = credit.trained("boosting")
        artifact.save(model.pipeline, model.meta.model_copy(update={"sklearn_version": request.param}), tmp_path / "it")
        return _released(tmp_path / "it", tmp_path)

    def test_it_is_refused_with_both_versions_and_what_to_do(self, place: Path) -> None:
        said = why(place)
        assert said.startswith("The model was trained with scikit-learn ") and "version_skew: warn" in said

    def test_it_is_served_with_a_warning_where_the_manifest_says_so(self, place: Path, caplog: Any) -> None:
        slot = slots.load(place, "blue", Admission(keys=render_public_pem(KEY), skew="warn"))
        assert isinstance(slot, Loaded) and "it is served all the same" in caplog.text

    def test_another_patch_release_is_no_other_library(self) -> None:
        major, minor, *_ = credit.trained("boosting").meta.sklearn_version.split(".")
        Admission().check_version(f"{major}.{minor}.99")

    def test_the_compiled_form_does_not_ask(self, tmp_path: Path) -> None:
        meta = credit.trained("logistic").meta.model_copy(update={"sklearn_version": "0.24.2"})
        artifact.save_compiled(compiling.compile_pipeline(credit.trained("logistic").pipeline), meta, tmp_path / "it")
        assert isinstance(slots.load(_released(tmp_path / "it", tmp_path), "blue", TRUSTING), Loaded)


def _released(source: Path, place: Path) -> Path:
    """A release of what lies in `source`, blessed as it is."""
    digest = artifact.compute_digest(source)
    artifact.copy_verified(source, place / "artifacts", digest)
    point(place, digest=digest, blessing=bless(place, version="3", digest=digest))
    return place
