"""The compiled form computes what the pipeline computes, or it does not serve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from include.kernel.errors import ArtifactRejected, Permanent
from include.model import artifact, conformance, export
from include.model.artifact import ServableModel
from include.model.calibration import Calibration
from include.model.compiled import compiling, runtimes
from include.model.compiled.encoding import Encoder, Encoding, Numbers
from include.model.pipelines import BUILDERS, build
from include.model.schema import build_frame, conform
from tests import credit

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = {"logistic": "onnx", "random_forest": "onnx", "boosting": "treelite", "torch_mlp": "onnx"}
SIGMOID = Calibration(method="sigmoid", slope=0.9, intercept=0.1)
LEAN = """
import sys
from pathlib import Path
from include.model import artifact, conformance
model = artifact.load(Path(sys.argv[1]))
assert conformance.check_golden(model) is None
print(*[name for name in ("pandas", "sklearn", "skops", "torch", "onnx") if name in sys.modules])
"""


@pytest.fixture(scope="module", params=RUNTIMES)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ServableModel, Path]:
    """A trained pipeline with a calibration, and the directory of what serves it."""
    trained, place = credit.trained(request.param), tmp_path_factory.mktemp(request.param)
    meta = trained.meta.model_copy(update={"calibration": SIGMOID})
    model = export.add_golden_rows(ServableModel(meta, trained.pipeline), credit.rows()[:20])
    export.write(model, place, credit.rows()[:500])
    return request.param, model, place


def test_every_candidate_has_a_compiled_form_and_says_so(both: tuple[str, ServableModel, Path]) -> None:
    kind, _, place = both
    meta = artifact.read_meta(place)
    assert set(RUNTIMES) == set(BUILDERS)
    assert (meta.runtime, meta.path) == (RUNTIMES[kind], "compiled")
    assert meta.why == f"the {meta.runtime} form computes what the pipeline computes"
    assert not (place / "model.skops").exists()


def test_on_all_rows_it_is_within_its_tolerance_and_decides_the_same(both: tuple[str, ServableModel, Path]) -> None:
    kind, model, place = both
    served = artifact.load(place)
    assert served.meta.tolerance == (1e-5 if kind == "torch_mlp" else 1e-6)
    expected, found = model.predict_proba(credit.rows()), served.predict_proba(credit.rows())
    assert np.mean(np.abs(expected - found) > served.meta.tolerance) <= 0.001
    assert (expected >= 0.25).tolist() == (found >= 0.25).tolist()
    assert conformance.check(model, place, credit.rows()) == []


def test_rows_and_a_table_are_answered_alike(both: tuple[str, ServableModel, Path]) -> None:
    served = artifact.load(both[2])
    table = conform(credit.data(), served.meta.columns)
    assert served.predict_frame(table).tolist() == served.predict_proba(credit.rows()).tolist()


def test_it_is_served_without_pandas_and_scikit_learn(both: tuple[str, ServableModel, Path]) -> None:
    command = [sys.executable, "-c", LEAN, str(both[2])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.split() == []


@pytest.mark.parametrize(("name", "says"), [("encoding.json", "encoding.json"), ("model.onnx", "model.onnx")])
def test_a_missing_file_of_the_compiled_form_is_a_sentence(name: str, says: str, tmp_path: Path) -> None:
    artifact.save_compiled(compiling.compile_pipeline(credit.trained("logistic").pipeline), _meta(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactRejected, match=f"no readable {says}"):
        artifact.load(tmp_path)


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no model", lambda data: data[: len(data) // 2]])
def test_a_damaged_model_file_is_refused(kind: str, damage: Any, tmp_path: Path) -> None:
    form = compiling.compile_pipeline(credit.trained(kind).pipeline)
    artifact.save_compiled(form, _meta(), tmp_path)
    path = next(tmp_path.glob("model.*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactRejected, match="cannot be read"):
        artifact.load(tmp_path)


def test_an_encoding_of_another_model_is_refused(tmp_path: Path) -> None:
    artifact.save_compiled(compiling.compile_pipeline(credit.trained("logistic").pipeline), _meta(), tmp_path)
    path = tmp_path / "encoding.json"
    content = json.loads(path.read_text())
    content["categories"]["values"].pop("Job")
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactRejected, match="does not read"):
        artifact.load(tmp_path)


def test_an_encoding_that_reads_a_column_nobody_declared_is_refused(tmp_path: Path) -> None:
    meta = _meta().model_copy(update={"columns": credit.columns()[1:]})
    artifact.save_compiled(compiling.compile_pipeline(credit.trained("logistic").pipeline), meta, tmp_path)
    with pytest.raises(ArtifactRejected, match="reads the column 'Seniority'"):
        artifact.load(tmp_path)


class TestFallback:
    def test_a_compiled_form_that_computes_something_else_does_not_serve(self, tmp_path, monkeypatch) -> None:
        """A converter that is wrong on one column: the other model's file beside this one's encoding."""
        right, wrong = (compiling.compile_pipeline(credit.trained("logistic").pipeline) for _ in range(2))
        scaled = wrong.encoding.numbers.model_copy(update={"shift": tuple(s + 1 for s in wrong.encoding.numbers.shift)})
        wrong = compiling.CompiledForm("onnx", right.data, right.encoding.model_copy(update={"numbers": scaled}))
        monkeypatch.setattr(compiling, "compile_pipeline", lambda pipeline: wrong)
        done = export.write(credit.trained("logistic"), tmp_path, credit.rows()[:50])
        assert (
            done.meta.path == "generic" and "its onnx form does not conform: The saved model differs" in done.meta.why
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact.json", "explanation.json", "model.skops"]
        assert artifact.load(tmp_path).meta == done.meta

    def test_a_pipeline_that_is_not_known_serves_by_itself(self, tmp_path) -> None:
        pipeline = build("boosting", credit.columns(), {"max_iter": 5}, 1)
        pipeline.steps.insert(1, ("again", "passthrough"))
        table = build_frame(credit.rows(), credit.columns())
        pipeline.fit(table, (credit.data()["Status"] == "bad").astype(int))
        done = export.write(
            ServableModel(_meta().model_copy(update={"golden": ()}), pipeline), tmp_path, credit.rows()[:50]
        )
        assert done.meta.why.endswith("it is not made of the two steps prepare and model")

    def test_a_network_with_a_feature_function_has_no_form_and_says_so(self, tmp_path) -> None:
        model = credit.trained("torch_mlp")
        update = {"features": "include.model.features:_return_unchanged", "framework": "torch"}
        with pytest.raises(Permanent, match="is code and cannot be compiled; a network has no other form"):
            export.write(ServableModel(model.meta.model_copy(update=update), model.pipeline), tmp_path, [])
        assert list(tmp_path.iterdir()) == []

    def test_a_feature_function_is_served_by_the_pipeline(self, tmp_path) -> None:
        model = credit.trained("logistic")
        meta = model.meta.model_copy(update={"features": "include.model.features:_return_unchanged"})
        done = export.write(ServableModel(meta, model.pipeline), tmp_path, credit.rows()[:50])
        assert "the feature function include.model.features:_return_unchanged is code" in done.meta.why


class TestInt8:
    def test_the_variant_is_smaller_and_within_its_declared_tolerance(self, tmp_path) -> None:
        model = credit.trained("torch_mlp")
        found = export.write_int8(model, tmp_path, credit.rows()[:500], tolerance=0.05)
        served = artifact.load(tmp_path)
        assert found.size < found.full_size and 0 < found.mean <= found.worst and found.is_within_tolerance(0.05)
        assert (served.meta.precision, served.meta.tolerance) == ("int8", 0.05)
        assert conformance.check_golden(served) is None and found.other_decisions < 0.02

    def test_a_model_that_is_no_network_has_no_variant(self, tmp_path) -> None:
        with pytest.raises(compiling.NotCompilable, match="is no network"):
            export.write_int8(credit.trained("boosting"), tmp_path, credit.rows()[:50], tolerance=0.05)
        assert list(tmp_path.iterdir()) == []


class TestEncoder:
    @pytest.mark.parametrize("kind", ["logistic", "boosting"])
    def test_values_of_any_type_are_read_as_the_frame_would_read_them(self, kind) -> None:
        pipeline = credit.trained(kind).pipeline
        encoder = Encoder(compiling.build_encoding(pipeline[0]))
        odd = ((30, None), (True, 3), (None, np.nan), (np.nan, "never seen before"), (pd.NA, "fixed"))
        rows = [{**credit.rows()[0], "Age": age, "Job": job} for age, job in odd]
        table = build_frame(rows, credit.columns())
        assert np.allclose(
            encoder.encode_rows(rows), pipeline[:-1].transform(table), rtol=0, atol=1e-12, equal_nan=True
        )
        assert np.array_equal(encoder.encode_rows(rows), encoder.encode_frame(table), equal_nan=True)

    @pytest.mark.parametrize("kind", ["logistic", "boosting"])
    def test_a_columnar_table_becomes_the_very_matrix_of_the_frame(self, kind) -> None:
        encoder = Encoder(compiling.build_encoding(credit.trained(kind).pipeline[0]))
        found = credit.data().assign(Job=credit.data()["Job"].where(credit.data()["Age"] > 20, "never seen before"))
        expected = encoder.encode_frame(conform(found, credit.columns()))
        assert np.array_equal(encoder.encode_batch(pl.from_pandas(found)), expected, equal_nan=True)

    def test_columns_of_any_type_are_read_as_the_frame_would_read_them(self) -> None:
        encoder = Encoder(compiling.build_encoding(credit.trained("logistic").pipeline[0]))
        odd = {"Age": [True, None, False], "Income": [2**60, None, -1], "Job": [3, None, 4], "Home": [None] * 3}
        rows = [{**credit.rows()[0], **{name: values[row] for name, values in odd.items()}} for row in range(3)]
        table = pl.DataFrame({name: [row[name] for row in rows] for name in rows[0]})
        assert np.array_equal(
            encoder.encode_batch(table), encoder.encode_frame(build_frame(rows, credit.columns())), equal_nan=True
        )

    def test_an_encoding_whose_tables_do_not_fit_is_refused(self) -> None:
        for wrong in ({"fill": [1.0, 2.0]}, {"indicators": [1]}, {"shift": [0.0], "scale": [0.0]}, {"scale": [1, 2]}):
            with pytest.raises(ValueError):
                Numbers(names=("a",), **wrong)
        assert Encoder(Encoding(numbers=Numbers(names=("a",)))).encode_rows([{"a": 3}, {}])[0, 0] == 3


def _meta() -> artifact.ArtifactMeta:
    return credit.trained("logistic").meta


class TestTreelite:
    @pytest.fixture
    def form(self) -> compiling.CompiledForm:
        return compiling.compile_pipeline(credit.trained("boosting").pipeline)

    def test_the_c_function_computes_what_the_library_does_to_the_last_bit(self, form: compiling.CompiledForm) -> None:
        import treelite

        model = treelite.Model.deserialize_bytes(form.data)
        rows = np.random.default_rng(1).normal(0, 1e3, (300, form.encoding.width))
        rows[rows > 1500] = np.nan
        rows[0] = np.inf
        score = runtimes.open_model("treelite", form.data, form.encoding.width)
        for matrix in (rows, rows[:1], rows[:, ::-1], np.asfortranarray(rows), rows.astype(np.float32), rows[:0]):
            expected = treelite.gtil.predict(model, np.ascontiguousarray(matrix, dtype=np.float64)).reshape(-1)
            assert score(matrix).tobytes() == expected.tobytes()

    def test_rows_of_another_width_are_refused(self, form: compiling.CompiledForm) -> None:
        score = runtimes.open_model("treelite", form.data, form.encoding.width)
        for wrong in (np.zeros((2, form.encoding.width - 1)), np.zeros(form.encoding.width)):
            with pytest.raises(ValueError, match="reads 13 features"):
                score(wrong)

    def test_a_model_of_several_outputs_or_of_single_precision_is_refused(self) -> None:
        for precision, classes in (("float64", 3), ("float32", 1)):
            model = _other(precision, classes)
            with pytest.raises(ArtifactRejected, match="one probability for each row"):
                runtimes.open_model("treelite", model.serialize_bytes(), 2)


def _other(precision: str, classes: int) -> Any:
    """One tree that is one leaf, with as many outputs in this precision."""
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    builder = ModelBuilder(
        threshold_type=precision,
        leaf_output_type=precision,
        metadata=Metadata(2, "kMultiClf", False, 1, [classes], (1, 1)),
        tree_annotation=TreeAnnotation(1, [0], [classes - 1]),
        postprocessor=PostProcessorFunc(name="identity_multiclass"),
        base_scores=[0.0] * classes,
    )
    builder.start_tree()
    builder.start_node(0)
    builder.leaf(1.0)
    builder.end_node()
    builder.end_tree()
    return builder.commit()
