from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.jobs import explain
from include.model import artifact, export
from include.model.artifact import CompiledModel
from include.model.schema import conform
from tests.unit import credit


@pytest.mark.parametrize("kind", ["boosting", "torch_mlp"])
def test_contributions_of_all_columns_add_up_to_the_probabilities_that_are_served(kind: str, tmp_path: Path) -> None:
    export.write(credit.trained(kind), tmp_path, credit.rows()[:50])
    model, table = artifact.load(tmp_path), conform(credit.data(), credit.columns()).head(40)
    assert isinstance(model, CompiledModel)
    found = explain.contributions(model, table, seed=1)
    assert set(found) == {column.name for column in credit.columns()}
    total, served = sum(found.values()), model.predict_frame(table)
    assert np.allclose(total - total[0], served - served[0], atol=1e-6)  # up to the base value


def test_the_summary_ranks_the_columns_and_is_a_picture_too(tmp_path: Path) -> None:
    export.write(credit.trained("logistic"), tmp_path, credit.rows()[:50])
    explain.write(artifact.load(tmp_path), conform(credit.data(), credit.columns()).head(40), 1, tmp_path)
    told = json.loads((tmp_path / "shap.json").read_text())
    values = list(told["mean_absolute"].values())
    assert told["rows"] == 40 and values == sorted(values, reverse=True) and values[0] > 0.01
    assert "Seniority" in list(told["mean_absolute"])[:4]
    assert (tmp_path / "shap.svg").read_text().startswith("<?xml")


def test_a_model_without_a_compiled_form_is_left_unexplained(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    explain.write(credit.trained("logistic"), None, 1, tmp_path)
    assert list(tmp_path.iterdir()) == [] and "only compiled models" in caplog.text
