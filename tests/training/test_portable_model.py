"""A model in MLflow is used by people who have nothing of this project: by its version or alias, on any table."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import include
from include.kernel.errors import ArtifactRejected, RequestInvalid
from include.model.mlflow_model import PyfuncModel
from include.model.schema import Column, conform, is_missing
from include.registry.mlflow_registry import MlflowRegistry
from include.training.tracking import compute_table_digest
from tests import credit, portable


def must_answer_alike(models: list[portable.Logged], uri: str, tmp_path: Path) -> None:
    answers = portable.load_elsewhere(sys.executable, uri, models, tmp_path / "elsewhere")
    for logged in models:
        served = portable.ask_server(logged, tmp_path / logged.kind)
        for address in logged.addresses:
            assert set(answers[address]) == {"read_csv", "nullable", "arrow", "objects"}
            for kind, answer in answers[address].items():
                assert answer == pytest.approx(served, abs=1e-9), f"{address} asked by {kind}"


def test_every_candidate_is_loaded_by_version_and_alias_without_the_project_and_predicts_what_is_served(
    place, small, ask, registry, tmp_path
):
    small(name=place.name, **{"train.candidates": portable.CANDIDATES, "train.explain_rows": 5})
    models = portable.register(registry, ask("train").outputs, tmp_path / "artifacts")
    assert {logged.kind for logged in models} == set(portable.CANDIDATES)
    must_answer_alike(models, registry.uri, tmp_path)


def test_a_model_behind_a_feature_function_takes_the_functions_modules_and_packages_along(
    place, small, registry, tmp_path, monkeypatch
):
    checkout = portable.write_checkout(tmp_path / "checkout")
    name = f"{place.name}-own"
    changes = {"train.candidates": portable.FEATURED, "train.explain_rows": 5, "train.features": portable.FEATURES}
    small(name=name, **changes)
    own = MlflowRegistry(name, registry.uri)
    models = portable.register(own, portable.train_elsewhere(checkout), tmp_path / "artifacts")
    assert {logged.meta.path for logged in models} == {"generic"}
    mlflow.set_tracking_uri(registry.uri)
    monkeypatch.setattr(include, "__path__", [*include.__path__])
    here = mlflow.pyfunc.load_model(models[0].addresses[0])  # in a checkout that has no such function
    monkeypatch.setattr(include, "__path__", [*include.__path__, str(checkout / "include")])  # for the server
    must_answer_alike(models, registry.uri, tmp_path)
    served = portable.ask_server(models[0], tmp_path / "again")
    assert here.predict(portable.choose_table(models[0].meta)) == pytest.approx(served, abs=1e-9)
    listed = Path(mlflow.pyfunc.get_model_dependencies(models[0].addresses[0])).read_text()
    assert "scipy==" in listed
    monkeypatch.setattr(add_other_ratio, "__module__", "include.own.ratios")
    monkeypatch.setattr("include.own.ratios.add_ratio", add_other_ratio)
    with pytest.raises(ArtifactRejected, match="misses its golden rows"):
        mlflow.pyfunc.load_model(models[0].addresses[0])


def add_other_ratio(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ratio=table["Age"])


COLUMNS = (
    Column(name="Home", kind="category", categories=("owner", "rent")),
    Column(name="Branch", kind="category", categories=("1", "2")),
    Column(name="Age", kind="number"),
)


class Echo:
    """Answers with the frame that a model would have read."""

    class meta:
        columns = COLUMNS

    def predict_frame(self, table: pd.DataFrame) -> pd.DataFrame:
        return table


def read(**columns: object) -> dict[str, list[object]]:
    found = PyfuncModel(Echo()).predict(pd.DataFrame(columns))  # type: ignore[arg-type]
    return {name: [None if is_missing(value) else value for value in found[name]] for name in found}


@pytest.mark.parametrize("branch", [[1, None, 2], pd.array([1, None, 2], "Int64"), pd.array([1, None, 2], "Float64")])
def test_codes_beside_a_gap_are_the_categories_they_were(branch):
    assert read(Home=["rent"] * 3, Branch=branch, Age=[1, 2, 3])["Branch"] == ["1", None, "2"]


def test_a_column_that_is_not_there_is_missing_and_a_word_for_a_number_is_told_with_its_column():
    assert read(Age=[1, 2]) == {"Home": [None, None], "Branch": [None, None], "Age": [1.0, 2.0]}
    with pytest.raises(RequestInvalid, match=r"The column 'Age' must hold numbers: .*'old'"):
        read(Age=["old"])


NOTHING = [None, pd.NA, pd.NaT, float("nan"), np.float32("nan"), np.float64("nan"), Decimal("nan")]


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("column", COLUMNS[::2], ids=["category", "number"])
def test_whatever_says_missing_is_missing(nothing, column):
    [value] = conform(pd.DataFrame({column.name: pd.Series([nothing], dtype=object)}), [column])[column.name]
    assert is_missing(value)


@pytest.mark.parametrize("dtype", ["string", "string[pyarrow]", "category", pd.ArrowDtype(pa.string()), object])
def test_a_missing_text_of_any_type_is_no_category(dtype):
    assert read(Home=pd.Series(["rent", None], dtype=dtype), Age=[1, 2])["Home"] == ["rent", None]


def test_the_digest_of_the_rows_sees_gaps_and_the_last_row():
    table = pd.concat([credit.data()] * 3, ignore_index=True)
    for name, value in (("Income", 1.0), ("Home", "nowhere"), ("Amount", 1)):
        for row in (0, len(table) - 1):
            changed = table.copy()
            changed.loc[row, name] = value
            assert compute_table_digest(changed) != compute_table_digest(table), (name, row)
    assert compute_table_digest(table.copy()) == compute_table_digest(table) != compute_table_digest(table[::-1])


def test_mlflow_is_told_that_digest(place, ask, registry):
    run_id = ask("train").outputs["run_id"]
    with registry.open_client() as client:
        [told] = client.get_run(run_id).inputs.dataset_inputs
    assert len(told.dataset.digest) == 32
