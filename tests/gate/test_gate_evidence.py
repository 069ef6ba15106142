"""What the gate is told beside the scores, and the page that people read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from include import manifest
from include.data.spec import GroupsSpec
from include.gate import curves, evidence, gate_page
from include.gate.core import gate
from include.gate.core.checks import Scores
from tests.proofs.binormal import World

GROUPS = GroupsSpec(business=("home",), protected=("age",), bands={"age": (30, 45)})


def test_numbers_are_banded_categories_are_taken_and_what_is_missing_has_no_group() -> None:
    rows = pd.DataFrame({"age": [29.9, 30.0, 44.0, 45.0, np.nan], "home": ["own", None, "rent", "own", "own"]})
    found = evidence.assign_groups(rows, GROUPS, GROUPS.columns)
    assert found["age"].tolist() == ["<30", "30-45", "30-45", ">=45", None]
    assert found["home"].tolist() == ["own", None, "rent", "own", "own"]


def test_an_input_that_is_the_label_in_disguise_is_found_also_as_a_category_or_as_a_gap() -> None:
    random = np.random.default_rng(1)
    truth = (random.uniform(size=800) < 0.3).astype(np.float64)
    table = pd.DataFrame(
        {
            "code": np.where(truth == 1, "zeta", "alpha").astype(object),
            "paid": np.where(truth == 1, np.nan, random.normal(size=800)),
            "noise": random.normal(size=800),
        }
    )
    found = evidence.encode_features(table[400:], table[:400], truth[:400])
    areas = {
        name: gate.compute_metrics(truth[400:], values, manifest.load().gate)["auc"] for name, values in found.items()
    }
    assert areas["code"] == areas["paid missing"] == 1.0
    assert 0.4 < areas["noise"] < 0.6


def test_folds_are_read_in_their_order_and_are_none_where_none_were_logged() -> None:
    logged = {"cv_auc_fold_2": 0.7, "cv_auc": 0.75, "cv_auc_fold_1": 0.8}
    assert evidence.read_fold_aucs(logged) == (0.8, 0.7)
    assert evidence.read_fold_aucs({"cv_auc": 0.75}) is None


@pytest.mark.parametrize("first", [True, False])
def test_the_page_is_self_contained_and_escapes_what_comes_from_the_data(first: bool) -> None:
    spec, random = manifest.load().gate, np.random.default_rng(2)
    scores = World(800, 0.8, 0.85).scores(random)
    scores = Scores(scores.truth, scores.challenger, None if first else scores.champion)
    groups = {"home": random.choice(np.array(["<script>alert(1)</script>", "rent"], dtype=object), 800)}
    report = gate.judge(scores, spec, gate.Evidence(groups=groups))
    models = {"challenger": scores.challenger} | ({} if first else {"champion": scores.champion})
    document = {
        **report.convert_to_dict(),
        "intervals": {name: gate.estimate_intervals(scores.truth, score, spec) for name, score in models.items()},
        "slices": gate.measure_slices(scores, groups, spec),
        "champion_version": None if first else "3",
        "run_id": "r",
        "policy": None,
    }
    page = gate_page.render_gate_page(document, curves.draw(scores, spec.threshold))
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page
    assert page.count("<svg") == 1 and "src=" not in page and 'href="http' not in page
    assert ("the first model" if first else "against version 3") in page
    assert all(check.name in page for check in report.checks if "script" not in check.name)


def test_the_same_scores_draw_the_same_picture() -> None:
    scores = World(500, 0.8, 0.8).scores(np.random.default_rng(3))
    assert curves.draw(scores, 0.2) == curves.draw(scores, 0.2)
