from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.kernel.errors import ArtifactRejected
from include.model import artifact, export
from include.training import shap_summary
from tests import credit


@pytest.mark.parametrize("kind, space", [("logistic", "log_odds"), ("random_forest", "probability")])
def test_the_summary_ranks_the_columns_and_is_a_picture_too(kind: str, space: str, tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    serving.mkdir()
    export.write(credit.trained(kind), serving, credit.rows()[:50])
    shap_summary.write_summary(serving, credit.rows()[:40], tmp_path)
    told = json.loads((tmp_path / "shap.json").read_text())
    values = list(told["mean_absolute"].values())
    assert (told["rows"], told["space"]) == (40, space)
    assert values == sorted(values, reverse=True) and values[0] > 0.01
    assert set(told["mean_absolute"]) == {column.name for column in credit.columns()}
    assert "Seniority" in list(told["mean_absolute"])[:4]
    assert (tmp_path / "shap.svg").read_text().startswith("<?xml")


def test_an_artifact_that_keeps_nothing_to_explain_it_is_refused(tmp_path: Path) -> None:
    model = credit.trained("logistic")
    artifact.save(model.pipeline, model.meta, tmp_path)
    with pytest.raises(ArtifactRejected, match="train the model again"):
        shap_summary.write_summary(tmp_path, credit.rows()[:3], tmp_path)
