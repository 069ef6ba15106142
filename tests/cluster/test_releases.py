"""Releases on a real cluster, two pods a slot, while clients in another namespace ask the Service all the time."""

from __future__ import annotations

import threading

from include.kernel.errors import Conflict
from include.release.core.rollout import Release, Step
from tests.ground import wait_for


def test_a_release_and_a_rollback_under_load_cost_no_request(serving, release, make_load):
    assert release("1")[-1] is Step.DONE
    load = make_load()
    assert release("2", by="next")[-1] is Step.DONE
    load.is_answered_by("2")
    assert release("1", by="a person", kind="rollback")[-1] is Step.DONE
    load.is_answered_by("1")
    counted = load.stopped()
    print(f"\nload in the cluster: {counted}")
    assert counted["failed"] == 0 and {*counted["by_version"]} == {"1", "2"}, counted


def test_a_pod_of_the_live_slot_that_is_drained_costs_no_request(serving, release, make_load):
    assert release("1")[-1] is Step.DONE
    load = make_load()
    serving.reached.end(serving.reached.slots("blue")[0], at_once=False)
    wait_for(lambda: len(serving.reached.slots("blue")) == 2 and serving.target.observe().blue.ready)
    load.is_answered_by("1")
    counted = load.stopped()
    print(f"\nload while a pod was drained: {counted}")
    assert counted["failed"] == 0, counted


def test_a_pod_of_the_live_slot_that_dies_is_replaced_while_the_other_one_answers(serving, release, make_load):
    assert release("1")[-1] is Step.DONE
    load = make_load()
    serving.reached.end(serving.reached.slots("blue")[0])
    load.is_answered_by("1", more=200)
    wait_for(lambda: serving.target.observe().blue.ready)
    counted = load.stopped()
    print(f"\nload while a pod was killed: {counted}")
    assert counted["failed"] < 100 < counted["answered"], counted  # those it had taken, and until endpoints follow


def test_a_release_that_answers_wrongly_never_gets_a_request(serving, release, make_load):
    assert release("1")[-1] is Step.DONE
    load = make_load()
    assert release("extra-column", by="next")[-1] is Step.REJECTED
    counted = load.stopped()
    assert counted["failed"] == 0 and {*counted["by_version"]} == {"1"}, counted
    wait_for(lambda: serving.is_empty("green"))


def test_a_model_that_cannot_be_loaded_is_turned_down_with_the_slots_own_words(serving, release):
    assert release("1")[-1] is Step.DONE
    assert release("unloadable", by="next")[-1] is Step.REJECTED
    assert serving.target.read_verdicts(2)["accepted"]["verdict"] == "failed"
    assert serving.answers_with("1")


def test_of_six_runs_that_want_something_at_once_one_wins(serving):
    won: list[int] = []

    def want(number: int) -> None:
        try:
            serving.target.request_release(Release(str(number), "d" * 64), f"run {number}", "", "deploy", expected=0)
            won.append(number)
        except Conflict:
            pass

    writers = [threading.Thread(target=want, args=[number]) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
