"""Two versions and what became of their callers: who is promoted, who is not, and how often that is wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import manifest
from include.gate.spec import CostSpec
from include.kernel.errors import RequestInvalid
from include.kernel.inference.e_values import Interval, Losses, compute_confidence_sequence
from include.kernel.words.verdicts import Verdict
from include.release.core import release_plan
from include.release.core.experiment import Arm, judge
from include.release.core.rollout import ReleasePlan
from include.release.spec import ExperimentSpec

COST = CostSpec(false_approval=5.0, false_denial=1.0)
SPEC = ExperimentSpec(metric="errors", min_outcomes=50)


def arm(right: int, wrong: int) -> Arm:
    return Arm(true_positive=right, false_negative=wrong)


def test_a_challenger_that_is_proven_better_is_promoted_with_its_lift() -> None:
    found = judge(arm(450, 50), arm(300, 200), SPEC, COST)
    assert found.verdict is Verdict.PASSED
    assert found.report["lift"] == pytest.approx(0.3) and found.report["relative"] == pytest.approx(0.75)
    low, high = found.report["interval"]
    assert 0 < low < 0.3 < high < 1
    assert found.why.startswith("the challenger is better: errors lower by 0.300 (0.")


def test_one_that_is_proven_worse_is_ended_though_it_has_few_callers() -> None:
    found = judge(arm(0, 40), arm(40, 0), SPEC, COST)
    assert found.verdict is Verdict.FAILED and found.why.startswith("the challenger is worse: errors lower by -1.000")


def test_nobody_is_promoted_with_few_callers_or_without_a_difference() -> None:
    few, equal = judge(arm(40, 0), arm(0, 40), SPEC, COST), judge(arm(400, 100), arm(400, 100), SPEC, COST)
    assert few.verdict is equal.verdict is Verdict.PENDING
    assert few.why.startswith("40 of 50 callers with an outcome")
    assert equal.why.startswith("no difference is proven")
    assert judge(Arm(), Arm(), SPEC, COST).verdict is Verdict.PENDING


def test_outcomes_of_others_than_those_who_were_dealt_promote_nobody() -> None:
    """As when only approved applicants are ever heard of again, and one version approves half as many."""
    found = judge(arm(600, 0), arm(100, 100), SPEC, COST)
    assert found.verdict is Verdict.PENDING
    assert "75% of the callers with an outcome are the challenger's and not 50%" in found.why


@pytest.mark.parametrize(
    "metric, loss", [("cost", (5 + 0.2 * 5 * 2) / 5 / 10), ("errors", 0.3), ("positive", 0.4), ("negative", 0.6)]
)
def test_each_metric_is_a_mean_loss_of_a_caller(metric, loss) -> None:
    ten = Arm(true_positive=3, false_positive=2, false_negative=1, true_negative=4)
    found = judge(ten, ten, SPEC.model_copy(update={"metric": metric}), COST)
    assert found.report["loss"] == {"challenger": pytest.approx(loss), "champion": pytest.approx(loss)}


@given(st.sampled_from([0.1, 0.5, 0.8]), *[st.integers(0, 300)] * 6)
def test_the_interval_lies_around_what_was_seen_and_mirrors_when_the_arms_change_places(weight, a, b, c, d, e, f):
    one, two = {0.0: a, 0.2: b, 1.0: c}, {0.0: d, 0.2: e, 1.0: f}
    found, mirrored = (
        compute_confidence_sequence(Losses(weight, one, two), 0.05),
        compute_confidence_sequence(Losses(1 - weight, two, one), 0.05),
    )
    assert -1 <= found.low <= found.high <= 1
    assert found.low == pytest.approx(-mirrored.high, abs=1e-9) and found.high == pytest.approx(-mirrored.low, abs=1e-9)


def test_a_smaller_alpha_makes_a_wider_interval_and_nothing_seen_is_everything() -> None:
    losses = Losses(0.5, {0.0: 700, 1.0: 300}, {0.0: 600, 1.0: 400})
    wide, narrow = compute_confidence_sequence(losses, 0.001), compute_confidence_sequence(losses, 0.2)
    assert wide.low < narrow.low < -0.1 < narrow.high < wide.high
    assert compute_confidence_sequence(Losses(0.5, {}, {}), 0.05) == Interval(-1.0, 1.0)


def test_looking_again_and_again_promotes_an_equal_challenger_as_rarely_as_it_is_stated() -> None:
    """A hundred experiments without a difference, six looks each; alpha / 2 of them may be promoted."""
    draw, promoted = random.Random(5), 0
    for _ in range(100):
        arms = {True: [0, 0], False: [0, 0]}
        for _ in range(6):
            for _ in range(150):
                arms[draw.random() < 0.5][draw.random() < 0.3] += 1
            if judge(arm(*arms[True]), arm(*arms[False]), SPEC, COST).verdict is Verdict.PASSED:
                promoted += 1
                break
    assert promoted <= 100 * SPEC.alpha / 2 + 3 * (100 * 0.025 * 0.975) ** 0.5


class TestStrategy:
    def made(self, **changes):
        release = manifest.load().release.model_copy(update=changes.pop("release", {}))
        return manifest.load().model_copy(update={"release": release, **changes})

    def test_blue_green_is_a_plan_of_nothing_and_a_canary_has_its_shadow_first(self) -> None:
        assert release_plan.build_plan(self.made(), "3") == ReleasePlan()
        canary = release_plan.build_plan(self.made(release={"strategy": "canary", "approval": "before_switch"}), "3")
        assert canary == ReleasePlan(shadow=True, weights=(5, 25, 50), approval=True)

    def test_a_shadow_has_a_switch_of_its_own(self) -> None:
        shadow = manifest.load().release.shadow
        on, off = (shadow.model_copy(update={"enabled": enabled}) for enabled in (True, False))
        assert release_plan.build_plan(self.made(release={"shadow": on}), "3") == ReleasePlan(shadow=True)
        assert not release_plan.build_plan(self.made(release={"shadow": off, "strategy": "canary"}), "3").shadow

    def test_an_experiment_is_the_version_the_manifest_names_or_the_one_a_person_asks_for(self) -> None:
        named = self.made(experiment=ExperimentSpec(version="7", share=30))
        assert (
            release_plan.build_plan(named, "7")
            == release_plan.build_plan(named, "8", experiment=True)
            == ReleasePlan(experiment=30)
        )
        assert release_plan.build_plan(named, "8") == ReleasePlan()

    def test_outcomes_are_counted_from_the_log_so_there_must_be_one(self) -> None:
        serving = manifest.load().serving
        mute = serving.model_copy(update={"log": serving.log.model_copy(update={"enabled": False})})
        with pytest.raises(RequestInvalid, match=r"serving\.log\.enabled is false"):
            release_plan.build_plan(self.made(experiment=ExperimentSpec(), serving=mute), "7", experiment=True)

    def test_who_asks_for_one_without_a_section_is_told_what_to_do(self) -> None:
        with pytest.raises(RequestInvalid, match="Version 7 cannot be an experiment: the manifest has no section"):
            release_plan.build_plan(self.made(), "7", experiment=True)
