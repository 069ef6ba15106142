"""The policy, asked about every combination of what can be known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import product
from typing import get_args

from include.core.manifest import RetrainingSpec
from include.core.retraining import Decision, Facts, Trigger, decide

AS_OF = date(2026, 9, 20)
POLICY = RetrainingSpec(schedule="@weekly", cooldown_days=5, min_new_labels=1000, wait_for_labels_days=21)
MIN_ROWS = 800


def ago(days: int) -> date:
    return AS_OF - timedelta(days=days)


def facts() -> Iterator[Facts]:
    """Every combination, each number just below, at and beyond its limit."""
    triggers: tuple[Trigger, ...] = get_args(Trigger)
    triggered = [ago(days) for days in (-1, 0, 20, 21, 22)]
    trained = [None, *(ago(days) for days in (-1, 0, 4, 5, 6))]
    combined = product(triggers, triggered, trained, (0, 799, 800, 5000), (0, 999, 1000, 5000), (False, True))
    for trigger, since, last, labels, new_labels, releasing in combined:
        yield Facts(trigger, since, AS_OF, last, labels, new_labels, releasing)


ALL = list(facts())


def decided(fact: Facts) -> Decision:
    return decide(fact, POLICY, MIN_ROWS)


def obstructed(fact: Facts) -> list[str]:
    """What speaks against a training that nobody asked for by hand, as words its reasons must hold."""
    assert fact.last_trained is not None
    found = {
        "release": fact.releasing,
        "cooldown": (AS_OF - fact.last_trained).days < 5,
        "new labelled rows": fact.new_labels < 1000,
    }
    return [word for word, holds in found.items() if holds]


def test_every_combination_is_decided_with_reasons_in_one_sentence() -> None:
    assert len(ALL) == 3 * 5 * 6 * 4 * 4 * 2
    for fact in ALL:
        decision = decided(fact)
        assert decision.verdict in ("yes", "no", "wait")
        assert all(decision.reasons) and decision.reasons
        assert decision.sentence.endswith(".") and "\n" not in decision.sentence


def test_nobody_gets_a_training_without_the_rows_it_needs() -> None:
    for fact in ALL:
        if fact.labels < MIN_ROWS:
            assert decided(fact).verdict == "no"
            assert f"{fact.labels} labelled rows of the 800 a training needs" in decided(fact).sentence


def test_a_person_s_word_is_enough_where_a_training_is_possible() -> None:
    for fact in ALL:
        if fact.trigger == "manual" and fact.labels >= MIN_ROWS:
            assert decided(fact) == Decision("yes", ("a person asked for it",))


def test_the_first_model_is_trained_as_soon_as_it_is_possible() -> None:
    for fact in ALL:
        if fact.last_trained is None and fact.labels >= MIN_ROWS:
            assert decided(fact).verdict == "yes"


def decided_by_policy() -> Iterator[Facts]:
    return (f for f in ALL if f.trigger != "manual" and f.last_trained is not None and f.labels >= MIN_ROWS)


def test_schedule_and_drift_train_exactly_when_nothing_speaks_against_it() -> None:
    for fact in decided_by_policy():
        assert (decided(fact).verdict == "yes") is (not obstructed(fact))


def test_every_obstacle_is_told_and_no_other() -> None:
    for fact in decided_by_policy():
        if words := obstructed(fact):
            reasons = decided(fact).reasons
            assert len(reasons) == len(words)
            assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_only_a_drift_waits_and_only_as_long_as_the_policy_says() -> None:
    for fact in decided_by_policy():
        if obstructed(fact):
            patient = fact.trigger == "drift" and (AS_OF - fact.triggered).days <= 21
            assert decided(fact).verdict == ("wait" if patient else "no")


def test_more_labels_never_turn_a_yes_into_a_no() -> None:
    rank = {"no": 0, "wait": 1, "yes": 2}
    for fact in ALL:
        richer = Facts(**{**vars(fact), "labels": fact.labels + 5000, "new_labels": fact.new_labels + 5000})
        assert rank[decided(richer).verdict] >= rank[decided(fact).verdict]
