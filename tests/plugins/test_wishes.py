"""The operators that say what is wanted, and the one that follows the release machine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred

from evergreen.operators.rollout import RequestReleaseOperator, RequestRollbackOperator, RolloutOperator
from include.kernel.errors import ServiceUnavailable
from include.kernel.files import write_atomic
from include.kernel.ledger import Entry
from include.kernel.words.verdicts import Verdict
from include.model.blessing.blessing import compute_envelope_digest
from include.release.core.rollout import ReleasePlan, Route, Step
from include.release.targets.local import envoy_routes
from tests import blessed
from tests.blessed import OTHER_KEY
from tests.plugins.conftest import context, event


def want(**options):
    return RequestReleaseOperator(task_id="want").execute(context(**options))


def back(**options):
    return RequestRollbackOperator(task_id="want").execute(context(**options))


class TestWant:
    def test_the_version_of_the_form_is_wanted_with_its_blessed_digest(self, world):
        envelope = world.shelf.has_blessed("7")
        told = {"generation": 1, "version": "7", "digest": "7" * 64, "blessing": envelope}
        assert want(params={"version": "7"}) == told
        wish = world.open_target().read_desired_state()
        assert (wish.release.version, wish.kind, wish.why) == ("7", "deploy", "it is better")
        assert wish.blessing == compute_envelope_digest(envelope)

    def test_the_forms_box_makes_it_an_experiment_where_the_manifest_says_how(self, world, small):
        world.shelf.has_blessed("7")
        with pytest.raises(AirflowFailException, match="has no section experiment"):
            want(params={"version": "7", "experiment": True})
        small(experiment={"share": 30})
        want(params={"version": "7", "experiment": True})
        assert world.open_target().read_desired_state().plan == ReleasePlan(experiment=30)

    def test_without_a_form_it_is_the_version_of_the_event(self, world):
        world.shelf.has_blessed("8")
        found = context(event(version="8"), run_type="asset_triggered")
        assert RequestReleaseOperator(task_id="want").execute(found)["version"] == "8"

    def test_a_version_without_a_blessing_is_refused_for_good(self, world):
        with pytest.raises(AirflowFailException, match="no blessing"):
            want(params={"version": "7"})
        assert world.open_target().read_desired_state() is None

    @pytest.mark.parametrize(
        "signed, said",
        [
            ({"intent": "historical"}, "historical training and is never deployed"),
            ({"intent": "rehearsal"}, "rehearsal training and is never deployed"),
            ({"version": "6"}, "the blessing of version 6"),
            ({"key": OTHER_KEY}, "and trusted is"),
        ],
    )
    @pytest.mark.parametrize("form", [{}, {"intent": "live", "why": "I am in a hurry"}])
    def test_a_blessing_that_does_not_hold_is_refused_whatever_the_form_says(self, world, signed, said, form):
        world.shelf.has_blessed("7", **{key: value for key, value in signed.items() if key == "key"})
        if "key" not in signed:
            world.shelf.blessings["7"] = blessed.envelope(blessed.document(**signed))
        with pytest.raises(AirflowFailException, match=said):
            want(params={"version": "7", **form})
        assert world.open_target().read_desired_state() is None

    def test_an_old_blessing_without_a_signature_is_refused_with_what_to_do(self, world):
        world.shelf.blessings["7"] = json.dumps({"version": "7", "digest": "7" * 64, "run_key": "k"})
        with pytest.raises(AirflowFailException, match="without a signature; train again"):
            want(params={"version": "7"})

    def test_no_version_at_all_says_what_to_do(self, world):
        with pytest.raises(AirflowFailException, match="fill in the form's version"):
            want()

    def test_a_retry_stores_no_second_wish(self, world):
        world.shelf.has_blessed("7")
        assert want(params={"version": "7"}) == want(params={"version": "7"})
        assert len(list(world.open_ledger().read_entries("deploy.wanted"))) == 1

    def test_another_run_joins_a_release_that_is_under_way_and_starts_anew_when_it_has_ended(self, world):
        world.shelf.has_blessed("7")
        assert want(params={"version": "7"})["generation"] == 1
        assert want(params={"version": "7"}, run_id="another")["generation"] == 1
        world.open_target().record_verdict(1, "accepted", Verdict.FAILED, "answered 422")
        assert want(params={"version": "7"}, run_id="another")["generation"] == 2


@pytest.fixture
def history(world):
    """1, 2 and 3 served in this order; 3 is live in the blue slot."""
    for version in "123":
        details = {"digest": version * 64, "blessing": world.shelf.has_blessed(version)}
        entry = Entry(what="release.live", subject=version, who="deploy", why="", details=details)
        world.open_ledger().append(entry)
    root = world.root / "serving"
    write_atomic(root / "route" / "routes.yaml", envoy_routes.render(Route("blue", None, 3)))
    write_atomic(root / "slots" / "blue.json", '{"version": "3", "digest": "%s", "generation": 3}' % ("3" * 64))
    return world


def serve(world, version: str, generation: int) -> None:
    """The slot and the route as a release that ended well leaves them."""
    root, content = world.root / "serving", '{"version": "%s", "digest": "%s", "generation": %d}'
    write_atomic(root / "slots" / "blue.json", content % (version, version * 64, generation))
    write_atomic(root / "route" / "routes.yaml", envoy_routes.render(Route("blue", None, generation)))
    details = {"digest": version * 64, "blessing": world.shelf.blessings[version], "generation": generation}
    live = Entry(what="release.live", subject=version, who="rollback", why="", details=details)
    world.open_ledger().append(live)


class TestWishesThatMeet:
    """Two at once, one that comes late, the same twice: each has one end, and says which."""

    def test_an_event_that_names_an_older_version_than_the_one_that_serves_is_let_go(self, history):
        late = context(event(version="2"), run_type="asset_triggered")
        with pytest.raises(AirflowSkipException, match="Version 2 is older than 3, which serves, so the event"):
            RequestReleaseOperator(task_id="want").execute(late)
        assert history.open_target().read_desired_state() is None

    @pytest.mark.parametrize("version", ["3", "9"])
    def test_an_event_for_what_a_person_rolled_back_is_let_go_and_the_form_still_takes_it(self, history, version):
        """Also where the same content was registered under another version since."""
        assert back(params={"why": "it answers nonsense"})["version"] == "2"
        serve(history, "2", 4)
        history.shelf.has_blessed(version, digest="3" * 64)
        again = context(event(version=version), run_type="asset_triggered", run_id="again")
        with pytest.raises(AirflowSkipException) as let_go:
            RequestReleaseOperator(task_id="want").execute(again)
        for part in ("Version 3 was rolled back by a_dag a_run (it answers nonsense)", "name it in the form"):
            assert part in str(let_go.value)
        assert history.open_target().read_desired_state().kind == "rollback"
        [told] = history.open_ledger().read_entries("deploy.refused")
        assert (told.subject, told.why) == (version, str(let_go.value)), "people are told, by an alert"
        assert want(params={"version": version}, run_id="a person")["version"] == version

    @pytest.mark.parametrize("what", ["release.rejected", "release.reverted"])
    def test_an_event_for_what_was_turned_down_is_let_go_until_it_went_live_again(self, history, what):
        history.shelf.has_blessed("4")
        details = {"digest": "4" * 64, "blessing": "signed"}
        turned_down = Entry(what=what, subject="4", who="deploy", why="answered 422", details=details)
        history.open_ledger().append(turned_down)
        found = context(event(version="4"), run_type="asset_triggered")
        with pytest.raises(AirflowSkipException, match=r"by deploy \(answered 422\) and has not gone live since"):
            RequestReleaseOperator(task_id="want").execute(found)
        history.open_ledger().append(turned_down.model_copy(update={"what": "release.live"}))
        assert RequestReleaseOperator(task_id="want").execute(found)["version"] == "4"

    @pytest.mark.parametrize("operator", [RequestReleaseOperator, RequestRollbackOperator])
    def test_a_task_that_is_cleared_on_an_old_run_undoes_nothing_that_was_wanted_since(self, history, operator):
        old = context(params={"version": "1"}, run_id="old")
        operator(task_id="want").execute(old)
        history.open_target().record_verdict(4, "accepted", Verdict.FAILED, "answered 422")
        history.shelf.has_blessed("5")
        newer = want(params={"version": "5"}, run_id="newer")["generation"]
        with pytest.raises(AirflowSkipException, match="for version 1 already, and a_dag newer for version 5 since"):
            operator(task_id="want").execute(old)
        assert history.open_target().read_desired_state().generation == newer

    def test_a_person_may_deploy_an_older_version_by_the_form(self, history):
        assert want(params={"version": "2"})["version"] == "2"
        assert history.open_target().read_desired_state().kind == "deploy"

    def test_the_version_that_serves_may_be_wanted_again(self, history):
        assert want(params={"version": "3"})["version"] == "3"

    def test_a_deployment_waits_while_a_rollback_is_under_way_and_follows_it_when_it_was_turned_down(self, history):
        history.shelf.has_blessed("4")
        rolling_back = back()["generation"]
        with pytest.raises(AirflowException, match="A rollback to version 2 is under way") as waits:
            want(params={"version": "4"}, run_id="another")
        assert not isinstance(waits.value, AirflowFailException), "it is tried again"
        assert history.open_target().read_desired_state().kind == "rollback"
        history.open_target().record_verdict(rolling_back, "accepted", Verdict.FAILED, "answered 422")
        assert want(params={"version": "4"}, run_id="another")["generation"] == rolling_back + 1

    def test_a_rollback_that_nobody_follows_any_more_holds_up_no_deployment(self, history, small):
        back()
        small(**{"release.abandoned_s": 1e-6})
        history.shelf.has_blessed("4")
        assert want(params={"version": "4"}, run_id="another")["version"] == "4"

    def test_a_rollback_follows_whatever_is_wanted(self, history):
        history.shelf.has_blessed("4")
        deploying = want(params={"version": "4"})["generation"]
        assert back()["generation"] == deploying + 1

    def test_a_newer_deployment_takes_over_from_an_older_one(self, history):
        for version in "45":
            history.shelf.has_blessed(version)
        first, second = (want(params={"version": version}, run_id=version)["generation"] for version in "45")
        assert second == first + 1 and history.open_target().read_desired_state().release.version == "5"

    @pytest.mark.parametrize("version, why", [("7", "and trusted is"), ("8", "carries no blessing")])
    def test_what_is_refused_for_good_is_told_and_not_only_a_failed_task(self, world, version, why):
        world.shelf.has_blessed("7", OTHER_KEY)
        with pytest.raises(AirflowFailException):
            want(params={"version": version})
        [entry] = world.open_ledger().read_entries("deploy.refused")
        assert entry.subject == version and why in entry.why

    def test_a_rollback_that_is_refused_is_told_too(self, history):
        with pytest.raises(AirflowFailException):
            back(params={"version": "9"})
        [entry] = history.open_ledger().read_entries("rollback.refused")
        assert entry.subject == "9" and "never served" in entry.why


class TestWantBack:
    def test_it_is_the_last_other_version_that_really_served(self, history):
        found = back()
        assert (found["version"], found["digest"]) == ("2", "2" * 64)
        assert found["generation"] == 4, "one after the route's, though the wish of that one is lost"
        assert history.open_target().read_desired_state().kind == "rollback"

    def test_it_does_not_ask_the_registry(self, history):
        history.shelf.blessings.clear()
        assert back()["version"] == "2"

    def test_what_served_before_blessings_were_signed_never_serves_again(self, history):
        history.open_ledger().append(
            Entry(what="release.live", subject="2", who="", why="", details={"digest": "2" * 64})
        )
        with pytest.raises(AirflowFailException, match="Version 2 served before blessings were signed"):
            back()
        assert history.open_target().read_desired_state() is None

    def test_a_ledger_that_was_written_by_hand_is_not_believed(self, history):
        details = {"digest": "9" * 64, "blessing": history.shelf.has_blessed("9", OTHER_KEY)}
        history.open_ledger().append(Entry(what="release.live", subject="9", who="", why="", details=details))
        with pytest.raises(AirflowFailException, match="is blessed by key"):
            back()

    def test_one_may_name_an_older_one(self, history):
        assert back(params={"version": "1"})["version"] == "1"

    def test_a_version_that_never_served_is_refused(self, history):
        with pytest.raises(AirflowFailException, match="Version 9 never served"):
            back(params={"version": "9"})

    def test_with_no_history_there_is_nothing_to_go_back_to(self, world):
        with pytest.raises(AirflowFailException, match="No other version ever served"):
            back()


class Walk:
    """Takes the given steps and leaves the verdicts a real driver would leave; raises what it is told to."""

    def __init__(self, world, steps, error=None, **verdicts):
        self.world, self.steps, self.error, self.verdicts = world, steps, error, verdicts

    def choose_poll_interval(self, step: Step) -> float:
        return 0.5

    def run(self, generation: int, max_wait_s: float) -> Iterator[tuple[Step, float]]:
        for part, (verdict, why) in self.verdicts.items():
            self.world.open_target().record_verdict(generation, part, verdict, why)
        yield from ((step, 0.1) for step in self.steps)
        if self.error:
            raise self.error


WISH = {
    "generation": 4,
    "version": "7",
    "digest": "7" * 64,
    "blessing": blessed.envelope(blessed.document()),
}


class TestRollout:
    @pytest.fixture(autouse=True)
    def manifest(self, small):
        return small()

    def follow(self, world, *steps, error=None, **verdicts):
        world.driver = Walk(world, steps, error, **verdicts)
        return RolloutOperator(task_id="rollout", release_request=WISH).execute(context())

    def test_not_one_step_is_taken_for_a_wish_that_names_another_artifact_than_its_blessing(self, world):
        world.driver = Walk(world, [Step.SWITCH, Step.DONE])
        with pytest.raises(AirflowFailException, match="has the artifact 888888888888, but its blessing is of 7777"):
            RolloutOperator(task_id="rollout", release_request=WISH | {"digest": "8" * 64}).execute(context())
        assert list(world.open_ledger().read_entries()) == []

    def test_done_is_a_yes(self, world):
        found = self.follow(world, Step.SWITCH, Step.DONE, accepted=(Verdict.PASSED, "fine"))
        assert (found["verdict"], found["summary"]) == ("yes", "version 7 serves all traffic")
        assert [name for name, _ in found["outputs"]["steps"]] == ["switch", "done"]

    def test_a_rejection_is_a_no_with_the_reason_and_no_failure(self, world):
        found = self.follow(world, Step.REJECTED, accepted=(Verdict.FAILED, "answered 422"))
        assert found["verdict"] == "no"
        assert found["summary"] == "version 7 was rejected: accepted: answered 422"
        assert [entry.subject for entry in world.open_ledger().read_entries("release.rejected")] == ["7"]

    def test_a_failed_soak_is_told_as_reverted(self, world):
        found = self.follow(
            world,
            Step.REVERT,
            Step.REJECTED,
            accepted=(Verdict.PASSED, "fine"),
            soaked=(Verdict.FAILED, "3 of 9 probes failed"),
        )
        assert found["summary"] == "version 7 was reverted: soaked: 3 of 9 probes failed"

    def test_a_newer_wish_is_told_as_giving_way(self, world):
        found = self.follow(world, Step.SUPERSEDED)
        assert (found["verdict"], found["summary"]) == ("no", "version 7 gave way to a newer request")

    def test_the_very_first_release_that_soaks_badly_stays_and_says_so(self, world):
        found = self.follow(world, Step.DONE, soaked=(Verdict.FAILED, "2 probes failed"))
        assert "although 2 probes failed: there was no earlier version" in found["summary"]

    def test_what_takes_long_is_left_to_the_triggerer_and_gone_on_with_afterwards(self, world):
        with pytest.raises(TaskDeferred) as deferred:
            self.follow(world, Step.SWITCH, Step.SOAK, Step.SOAK)
        assert deferred.value.trigger.serialize()[1]["arguments"] == {"generation": 4}
        world.driver = Walk(world, [Step.DONE], accepted=(Verdict.PASSED, "fine"))
        operator = RolloutOperator(task_id="rollout", release_request=WISH)
        found = getattr(operator, deferred.value.method_name)(context(), {"step": "done"}, **deferred.value.kwargs)
        assert found["outputs"]["steps"] == [["switch", 0.1], ["soak", 0.2], ["done", 0.1]]

    def test_a_question_to_a_person_is_neither_a_yes_nor_a_no(self, world):
        found = self.follow(world, Step.VERIFY, Step.APPROVE, accepted=(Verdict.PASSED, "fine"))
        assert found["verdict"] == "ask" and "waits for a person's yes" in found["summary"]
        assert [entry.what for entry in world.open_ledger().read_entries()] == ["release.asked"]

    def test_soaking_is_a_state_that_is_entered_once_and_marked_in_the_registry_while_it_lasts(self, world):
        routed = envoy_routes.render(Route("green", "blue", 4, trial=4))
        write_atomic(world.root / "serving" / "route" / "routes.yaml", routed)
        for _ in range(2):
            with pytest.raises(TaskDeferred):
                self.follow(world, Step.SWITCH, Step.SOAK)
        [entry] = world.open_ledger().read_entries("release.soaking")
        assert entry.why == "for 1 s, before it becomes the champion"
        assert set(world.shelf.marked) == {"7"} and world.shelf.champion is None

    def test_the_soak_of_an_earlier_release_is_not_told_as_ones_own(self, world):
        routed = envoy_routes.render(Route("green", "blue", 4, trial=3))
        write_atomic(world.root / "serving" / "route" / "routes.yaml", routed)
        with pytest.raises(TaskDeferred):
            self.follow(world, Step.SOAK)
        assert list(world.open_ledger().read_entries()) == [] and world.shelf.marked == []

    def test_what_is_live_already_says_that_nothing_was_moved(self, world):
        assert self.follow(world, Step.DONE)["summary"] == "version 7 serves all traffic already, so nothing was moved"

    def test_an_outage_is_retried_with_its_sentence(self, world):
        with pytest.raises(AirflowException, match="Envoy is away") as caught:
            self.follow(world, Step.STAGE, error=ServiceUnavailable("Envoy is away"))
        assert not isinstance(caught.value, AirflowFailException)
