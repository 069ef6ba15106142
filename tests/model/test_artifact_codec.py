import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io as sio
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from include.kernel.errors import ArtifactRejected
from include.model import artifact
from include.model.conformance import build_awkward_rows, check
from include.model.pipelines import BUILDERS
from tests import credit


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = credit.trained("boosting")
    artifact.save(model.pipeline, model.meta, tmp_path / "artifact")
    return tmp_path / "artifact"


@pytest.mark.parametrize("kind", sorted(set(BUILDERS) - {"torch_mlp"}))  # torch has no generic form
def test_a_saved_model_computes_what_the_model_in_memory_computes(kind: str, tmp_path: Path) -> None:
    model = credit.trained(kind)
    digest = artifact.save(model.pipeline, model.meta, tmp_path)
    assert digest == artifact.compute_digest(tmp_path)
    assert check(model, tmp_path, credit.rows()) == []


def test_the_description_survives_the_round_trip(saved: Path) -> None:
    assert artifact.load(saved).meta == credit.trained("boosting").meta


def test_files_beside_the_model_belong_to_the_artifact(saved: Path) -> None:
    before = artifact.compute_digest(saved)
    (saved / "baseline.json").write_text("{}")
    assert artifact.compute_digest(saved) != before
    artifact.load(saved)


def test_the_threshold_decides_the_label() -> None:
    meta = credit.trained("boosting").meta
    assert [meta.choose_label(p) for p in (0.2499, 0.25)] == ["good", "bad"]


class Gadget:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._marker}",)


def test_a_pickle_is_refused_and_does_not_run(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    (saved / "model.skops").write_bytes(pickle.dumps(Gadget(marker)))
    with pytest.raises(ArtifactRejected, match="not in the skops format"):
        artifact.load(saved)
    assert not marker.exists()


def test_a_function_smuggled_into_the_file_is_refused_by_name_and_does_not_run(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    state = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 99}
    _edit(saved, lambda schema: schema["content"]["content"].update(steps=state))
    with pytest.raises(ArtifactRejected, match=r"type os\.system, which is not allowed"):
        artifact.load(saved)
    assert not marker.exists()


def test_a_module_named_by_the_file_is_not_even_imported(saved: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    state = {"__class__": "Evil", "__module__": "evil_module", "__loader__": "ObjectNode", "__id__": 98}
    _edit(saved, lambda schema: schema["content"]["content"].update(memory=state))
    with pytest.raises(ArtifactRejected, match=r"evil_module\.Evil"):
        artifact.load(saved)
    assert not (tmp_path / "it-ran").exists()


def test_a_type_that_skops_trusts_and_we_do_not_need_is_refused(saved: Path) -> None:
    sio.dump(GaussianNB().fit([[0.0], [1.0]], ["bad", "good"]), saved / "model.skops")
    with pytest.raises(ArtifactRejected, match=r"sklearn\.naive_bayes\.GaussianNB"):
        artifact.load(saved)


def test_a_users_function_is_refused_when_saving_already(tmp_path: Path) -> None:
    pipeline = Pipeline([("own", FunctionTransformer(np.abs)), ("model", LogisticRegression())])
    pipeline.fit([[0.0], [1.0]], ["bad", "good"])
    with pytest.raises(ArtifactRejected, match="absolute, which is not allowed"):
        artifact.save(pipeline, credit.trained("logistic").meta, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 0), ("left", 2**31), ("right", 0), ("right", 2**31), ("feature_idx", -1), ("feature_idx", 2**31)],
)
def test_a_tree_that_points_outside_of_itself_is_refused(field: str, value: int, tmp_path: Path) -> None:
    with _crafted(field, value) as pipeline:
        artifact.save(pipeline, credit.trained("boosting").meta, tmp_path)
    with pytest.raises(ArtifactRejected, match="nodes point outside"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("name", ["artifact.json", "model.skops"])
def test_a_missing_file_is_a_sentence(name: str, saved: Path) -> None:
    (saved / name).unlink()
    with pytest.raises(ArtifactRejected, match=f"no readable {name}"):
        artifact.load(saved)


def test_a_truncated_model_is_refused(saved: Path) -> None:
    data = (saved / "model.skops").read_bytes()
    (saved / "model.skops").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactRejected, match="not in the skops format"):
        artifact.load(saved)


@pytest.mark.parametrize(
    ("change", "place"), [({"format": 2}, "format"), ({"threshold": 7}, "threshold"), ({"x": 1}, "x")]
)
def test_a_description_that_breaks_its_format_names_the_place(change: dict[str, Any], place: str, saved: Path) -> None:
    path = saved / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactRejected, match=f"not valid at {place}"):
        artifact.load(saved)


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], ["red", "blue"])
    with pytest.raises(ArtifactRejected, match="does not tell 'bad'"):
        artifact.save(model, credit.trained("logistic").meta, tmp_path)


def test_conformance_finds_another_model_in_the_directory(saved: Path) -> None:
    problems = check(credit.trained("logistic"), saved, credit.rows()[:50])
    assert len(problems) == 1 + len(build_awkward_rows(credit.columns()))
    assert problems[0].startswith("The saved model differs on the given rows by")


def test_conformance_finds_golden_rows_that_are_not_reproduced(tmp_path: Path) -> None:
    model = credit.trained("logistic")
    golden = tuple(item.model_copy(update={"probability": 0.5}) for item in model.meta.golden)
    artifact.save(model.pipeline, model.meta.model_copy(update={"golden": golden}), tmp_path)
    assert [problem.partition(" by ")[0] for problem in check(model, tmp_path)] == ["The model misses its golden rows"]


def test_conformance_answers_a_file_that_cannot_be_loaded_as_a_problem(tmp_path: Path) -> None:
    assert check(credit.trained("logistic"), tmp_path) == [
        "The artifact has no readable artifact.json; stage the release again."
    ]


def _edit(directory: Path, change: Callable[[Any], object]) -> None:
    path = directory / "model.skops"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    change(schema)
    files["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


class _crafted:
    """The trained forest with one number in its first root changed, and changed back at the end."""

    def __init__(self, field: str, value: int) -> None:
        self._pipeline = credit.trained("boosting").pipeline
        self._nodes, self._field, self._value = self._pipeline[-1]._predictors[0][0].nodes, field, value

    def __enter__(self) -> Any:
        self._before = self._nodes[self._field][0]
        self._nodes[self._field][0] = self._value
        return self._pipeline

    def __exit__(self, *_: object) -> None:
        self._nodes[self._field][0] = self._before
