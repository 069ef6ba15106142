"""A search within a budget, that goes on where a killed attempt stopped and ends with the same parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.kernel.errors import ManifestInvalid
from include.kernel.work_units import list_shards
from include.training.core import search
from include.training.spec import SearchRange, TuningSpec
from include.training.tuning import tune

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"boosting": {"rate": SearchRange(low=0.01, high=1.0, log=True), "leaves": SearchRange(low=2, high=64)}}
SPEC = TuningSpec(trials=14, seconds=60, space=SPACE)
FIXED = {"rate": 0.5, "leaves": 3, "depth": 4}
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.test_tuning import FIXED, SPEC, losses
from include.training.tuning import tune
asked = 0
def once_too_often(params):
    for loss in losses(params):
        global asked
        asked += 1
        if asked == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield loss
tune("boosting", FIXED, SPEC, 7, Path(sys.argv[1]), once_too_often)
"""


def losses(params: dict[str, Any]) -> Iterator[float]:
    """Five folds of a loss that is lowest at rate 0.1 and 20 leaves."""
    for fold in range(5):
        yield abs(params["rate"] - 0.1) + abs(params["leaves"] - 20) / 100 + fold / 1000


def total(params: dict[str, Any]) -> float:
    return sum(losses(params))


def test_a_study_that_was_killed_goes_on_and_ends_with_the_same_parameters(tmp_path: Path) -> None:
    whole = tune("boosting", FIXED, SPEC, 7, tmp_path / "whole.journal", losses)
    journal = tmp_path / "cut.journal"
    for ask in ("1", "13", "20"):  # at once, and in the middle of the third and of a later trial
        command = [sys.executable, "-c", KILLED, str(journal), ask]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
        assert ended.returncode == -9
    assert tune("boosting", FIXED, SPEC, 7, journal, losses) == whole


def test_the_first_trial_is_the_manifests_and_the_best_is_no_worse(tmp_path: Path) -> None:
    trials = tune("boosting", FIXED, SPEC, 7, tmp_path / "j.journal", losses)
    assert trials[0].params == {"rate": 0.5, "leaves": 3}
    best = search.choose_best([trials])
    assert best is not None and isinstance(best["leaves"], int)
    assert len(trials) == 14 and total(best) < total(trials[0].params)
    assert "pruned" in {trial.state for trial in trials}


def test_studies_know_nothing_of_each_other_and_the_manifests_trial_is_made_once(tmp_path: Path) -> None:
    found = [
        tune("boosting", FIXED, SPEC, 7, tmp_path / f"{order}-{shard.index}.journal", losses, shard)
        for order, around in enumerate((list_shards(3), reversed(list_shards(3))))
        for shard in around
    ]
    assert found[:3] == found[:2:-1]
    assert [len(study) for study in found[:3]] == [5, 5, 4]
    assert [sum(trial.params == {"rate": 0.5, "leaves": 3} for trial in study) for study in found[:3]] == [1, 0, 0]
    assert len({trial.params["rate"] for study in found[:3] for trial in study}) == 14


def test_a_budget_of_seconds_ends_the_search_also_over_several_attempts(tmp_path: Path) -> None:
    short = SPEC.model_copy(update={"seconds": 1e-9})
    for _ in range(2):
        assert len(tune("boosting", FIXED, short, 7, tmp_path / "j.journal", losses)) == 1


def test_progress_is_told_trial_by_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tune("boosting", FIXED, SPEC.model_copy(update={"trials": 2}), 7, tmp_path / "j.journal", losses)
    assert "boosting: trial 2 of 2: " in caplog.text and "best so far" in caplog.text


def test_a_range_that_cannot_be_searched_is_refused(small: Any) -> None:
    with pytest.raises(ManifestInvalid, match="low must be smaller than high"):
        small(**{"train.tuning": {"trials": 3, "space": {"boosting": {"max_iter": {"low": 9, "high": 3}}}}})
    with pytest.raises(ManifestInvalid, match=r"names magic, which is not among the candidates"):
        small(**{"train.tuning": {"trials": 3, "space": {"magic": {"max_iter": {"low": 1, "high": 3}}}}})


def test_a_trial_that_diverges_is_given_up_and_the_study_goes_on(tmp_path: Path) -> None:
    def diverge(params: dict[str, Any]) -> Iterator[float]:
        yield from [0.25, float("nan")] if params["leaves"] > 30 or params == FIXED else [0.25, 0.2]

    study = tune("boosting", FIXED, SPEC, 7, tmp_path / "some.journal", diverge)
    assert len(study) == 14 and study[0].state == "pruned"
    assert {trial.loss for trial in study if trial.state == "complete"} == {0.225}
    assert search.choose_best([study])["leaves"] <= 30
    nothing = tune("boosting", FIXED, SPEC, 7, tmp_path / "none.journal", lambda _: iter([float("nan")]))
    assert len(nothing) == 14 and search.choose_best([nothing]) is None
