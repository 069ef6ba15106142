"""The policy, asked about every combination of what can be known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import product
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from include.retraining.core.policy import Approval, Decision, Facts, GateVerdict, Trigger, decide
from include.retraining.spec import RetrainingSpec

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


# --- what was approved, judged and refused before -----------------------------------------------------------------


def asked(trigger: Trigger = "schedule", **more: Any) -> Facts:
    """A run that nothing speaks against, unless `more` does."""
    return Facts(**{"trigger": trigger, "triggered": AS_OF, "as_of": AS_OF, **QUIET, **more})


QUIET: dict[str, Any] = {"last_trained": ago(10), "labels": 5000, "new_labels": 2000}


def told(facts: Facts) -> tuple[str, str]:
    decision = decided(facts)
    return decision.verdict, decision.sentence


def refusals(count: int, days: int) -> tuple[GateVerdict, ...]:
    return (GateVerdict("refused", ago(days)),) * count


def test_an_approval_starts_the_cooldown_before_its_training_has_begun() -> None:
    verdict, why = told(asked(approvals=(Approval(ago(1), "schedule"),)))
    assert (verdict, why) == ("no", "the last training was 1 data days ago, the cooldown is 5.")


def test_a_month_has_its_budget_and_what_a_person_asked_for_is_not_counted() -> None:
    policy = POLICY.model_copy(update={"monthly_budget": 2, "cooldown_days": 0})
    month = [Approval(ago(days), "drift") for days in (19, 7)]
    by_hand, before = Approval(ago(8), "manual"), Approval(ago(20), "schedule")
    assert decide(asked(approvals=(before, by_hand, month[0])), policy, MIN_ROWS).verdict == "yes"
    spent = decide(asked(approvals=(*month, by_hand)), policy, MIN_ROWS)
    assert spent == Decision("no", ("2 trainings were approved in 2026-09, the monthly budget is 2",))
    assert decide(asked("manual", approvals=tuple(month)), policy, MIN_ROWS).verdict == "yes"


def test_two_refused_gates_open_the_breaker_and_time_lets_one_training_through() -> None:
    assert told(asked(gates=refusals(1, 6)))[0] == "yes"
    verdict, why = told(asked(gates=refusals(2, 6)))
    assert (verdict, why) == (
        "no",
        "the gate refused the last 2 trainings; the next is tried as of 2026-09-28, or by a person.",
    )
    assert told(asked(gates=refusals(2, 14)))[0] == "yes"
    assert told(asked(gates=(*refusals(2, 20), *refusals(1, 6))))[0] == "no"


def test_a_gate_that_passes_closes_the_breaker_and_neither_doubt_nor_a_trial_by_hand_moves_it() -> None:
    passed, doubt = GateVerdict("passed", ago(6), manual=True), GateVerdict("inconclusive", ago(6))
    by_hand = GateVerdict("refused", ago(6), manual=True)
    assert told(asked(gates=(*refusals(2, 7), passed)))[0] == "yes"
    assert told(asked(gates=(*refusals(2, 7), doubt)))[0] == "no"
    assert told(asked(gates=(*refusals(1, 7), by_hand, by_hand)))[0] == "yes"


def test_an_episode_is_answered_once_and_so_is_every_drift_seen_before_that_answer() -> None:
    answer = Approval(ago(6), "drift", "drift-3-a")
    for facts in (asked("drift", episode="drift-3-a"), asked("drift", episode="drift-3-b", triggered=ago(6))):
        verdict, why = told(Facts(**{**vars(facts), "approvals": (answer,)}))
        assert (verdict, why) == ("no", f"the training approved as of {ago(6)} answers this drift already.")
    assert told(asked("drift", episode="drift-3-c", triggered=ago(5), approvals=(answer,)))[0] == "yes"


def test_the_weekly_training_answers_no_drift_since_it_knew_no_label_of_the_new_world() -> None:
    weekly = Approval(ago(6), "schedule")
    assert told(asked("drift", episode="drift-3-a", triggered=ago(6), approvals=(weekly,)))[0] == "yes"


def test_a_drift_waits_for_what_passes_by_itself_and_for_nothing_else() -> None:
    passing = ({"releasing": True}, {"unvalidated": "a day was refused"}, {"new_labels": 1}, {"last_trained": ago(1)})
    assert {told(asked("drift", **each))[0] for each in passing} == {"wait"}
    lasting = ({"gates": refusals(2, 1)}, {"approvals": (Approval(ago(9), "schedule"),) * 6})
    assert {told(asked("drift", **each))[0] for each in lasting} == {"no"}
    assert told(asked("drift", **passing[0], **lasting[0]))[0] == "no"


def test_a_model_too_old_is_trained_on_fewer_new_labels_but_not_on_none() -> None:
    assert told(asked(last_trained=ago(60), new_labels=1)) == (
        "yes",
        "the last training was 60 data days ago, at most 60 are wanted; "
        "schedule: 1 labelled rows the last training has not seen.",
    )
    assert told(asked(last_trained=ago(60), new_labels=0))[0] == "no"
    assert told(asked(last_trained=ago(59), new_labels=1))[0] == "no"


def test_a_yes_tells_everything_that_speaks_for_it() -> None:
    why = decided(asked("drift", performance="the AUC is too low", last_trained=ago(70))).reasons
    assert [word in reason for word, reason in zip(("drift", "AUC", "70", "2000"), why, strict=True)] == [True] * 4


def test_the_first_model_waits_for_valid_data_too() -> None:
    assert told(asked(last_trained=None, unvalidated="a day was refused")) == ("no", "a day was refused.")


@given(st.data())
def test_one_more_obstacle_never_helps(data: st.DataObject) -> None:
    rank = {"no": 0, "wait": 1, "yes": 2}
    trigger = data.draw(st.sampled_from(["schedule", "drift"]))
    facts = asked(trigger, new_labels=data.draw(st.sampled_from([0, 999, 1000])), releasing=data.draw(st.booleans()))
    worse: dict[str, Any] = data.draw(
        st.sampled_from(
            [{"unvalidated": "x"}, {"gates": refusals(2, 1)}, {"approvals": (Approval(ago(1), "schedule"),) * 6}]
        )
    )
    assert rank[decided(Facts(**{**vars(facts), **worse})).verdict] <= rank[decided(facts).verdict]
