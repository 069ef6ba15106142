import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.kernel.errors import Permanent
from include.model import artifact, export
from include.model.artifact import ArtifactMeta, ServableModel
from include.model.pipelines import BUILDERS, build, check_params
from include.model.schema import describe
from tests import credit


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_candidate_takes_missing_values_and_unseen_categories(kind: str) -> None:
    probabilities = credit.trained(kind).predict_proba([{}, {"Job": "astronaut"}, {"Age": 300}])
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_served_probability_is_that_of_the_positive_class(kind: str) -> None:
    labels = credit.data()["Status"][:500]
    probabilities = credit.trained(kind).predict_proba(credit.rows()[:500])
    assert probabilities[labels == "bad"].mean() > probabilities[labels == "good"].mean() + 0.1


@pytest.mark.parametrize("kind", BUILDERS)
def test_numbers_alone_or_categories_alone_are_enough(kind: str) -> None:
    for wanted in ("number", "category"):
        some = [column for column in credit.columns() if column.kind == wanted]
        table = credit.data()[[column.name for column in some]].iloc[:200]
        build(kind, some, {}, 1).fit(table, (credit.data()["Status"][:200] == "bad").astype(int))


def test_an_unknown_candidate_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Permanent, match="'magic'; known are boosting, logistic, random_forest, torch_mlp"):
        build("magic", credit.columns(), {}, 1)


def test_a_parameter_the_model_does_not_know_is_named() -> None:
    with pytest.raises(Permanent, match="max_itr"):
        build("boosting", credit.columns(), {"max_itr": 3}, 1)


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("logistic", {"C": "1e-3"}, "The 'C' parameter .* YAML takes C: 1e-3 for a text, write 0.001"),
        ("logistic", {"solver": "lbfgs", "l1_ratio": 0.5}, "lbfgs"),
        ("boosting", {"learning_rate": -1.0}, "The 'learning_rate' parameter"),
        ("boosting", {"max_leaf_nodes": 1}, "The 'max_leaf_nodes' parameter"),
        ("random_forest", {"max_features": "most"}, "The 'max_features' parameter"),
        ("torch_mlp", {"batchsize": 3}, "batchsize"),
        ("torch_mlp", {"lr": "1e-3"}, "write 0.001"),
        ("torch_mlp", {"units": "many"}, "cannot be fitted"),
        ("torch_mlp", {"max_epochs": "3e1"}, "write 30.0"),
    ],
)
def test_a_value_no_training_could_use_is_one_sentence_before_any_training(
    kind: str, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(Permanent, match=says) as refusal:
        check_params(kind, params, 1)
    assert "\n" not in str(refusal.value) and f"{kind!r}" in str(refusal.value)


@pytest.mark.parametrize("kind", BUILDERS)
def test_what_trains_passes_the_check_of_its_parameters(kind: str) -> None:
    check_params(kind, {"random_forest": {"max_samples": 5000}, "torch_mlp": {"hidden": 0}}.get(kind, {}), 1)


WIDE = pd.DataFrame({"amount": np.arange(8000.0), "shop": [f"shop {number % 4000}" for number in range(8000)]})


@pytest.mark.parametrize("kind", ["logistic", "random_forest"])
def test_a_category_of_thousands_of_values_takes_room_by_its_rows(kind: str, tmp_path: Path) -> None:
    """8,000 rows of 4,000 values are 244 MiB once they are dense."""
    params = {"random_forest": {"n_estimators": 2, "max_depth": 4}, "logistic": {"max_iter": 5}}[kind]
    columns = describe(WIDE)
    meta = ArtifactMeta(name="wide", columns=columns, positive="1", negative="0", threshold=0.5)
    tracemalloc.start()
    pipeline = build(kind, columns, params, 1).fit(WIDE, np.arange(8000) // 7 % 2)
    export.write(ServableModel(meta, pipeline), tmp_path, [{"amount": 1.0, "shop": "shop 1"}], export.Reference(WIDE))
    artifact.load(tmp_path).predict_frame(WIDE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


def test_a_network_trains_on_a_wide_category_too() -> None:
    some = WIDE.head(500)
    probabilities = build("torch_mlp", describe(some), {"max_epochs": 1}, 1).fit(some, np.arange(500) % 2)
    assert np.isfinite(probabilities.predict_proba(some)).all()
