"""What every serving target promises, seen from outside: through the proxy, as a client sees it."""

from __future__ import annotations

import os
import shutil
import threading

import httpx
import pytest

from include.kernel.errors import ArtifactRejected, Conflict, StorageUnavailable
from include.kernel.files import hold_lock
from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import Release, Route
from include.release.targets.local import records
from tests.ground import wait_for
from tests.real_cluster import RealServing, on_cluster
from tests.served import Serving
from tests.served_cluster import ClusterServing, on_nodes

TARGETS = {"local": Serving, "kubernetes": ClusterServing}
if os.environ.get("K8S_NAMESPACE"):  # `make test-k8s` has installed on a real cluster
    TARGETS = {"cluster": RealServing}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One suite for all targets; what files and Envoy alone can do is asked of them alone."""
    needed = {need for mark in metafunc.definition.iter_markers("needs") for need in mark.args}
    able = [name for name, handle in TARGETS.items() if needed <= handle.can]
    metafunc.parametrize("serving", able, indirect=True)


@pytest.fixture
def serving(request, tmp_path):
    if request.param == "local":
        yield request.getfixturevalue("local_serving")
        return
    with (on_cluster if request.param == "cluster" else on_nodes)(tmp_path) as served:
        yield served


class TestWanted:
    def test_at_first_nothing_is_wanted_and_nothing_is_there(self, serving):
        assert serving.target.read_desired_state() is None
        seen = serving.target.observe()
        assert (seen.route.live, seen.blue.release, seen.green.release) == (None, None, None)
        assert serving.ask().status_code == 503

    def test_every_new_wish_is_one_generation_further(self, serving, wish):
        assert [wish(version, by=version).generation for version in ("1", "2", "1")] == [1, 2, 3]
        assert serving.target.read_desired_state().generation == 3

    def test_the_same_wish_of_the_same_run_stays_the_same(self, wish):
        assert wish("1") == wish("1")

    def test_a_second_run_joins_a_release_under_way_and_begins_anew_after_its_end(self, serving, wish):
        assert wish("1", by="one").generation == wish("1", by="two").generation == 1
        serving.target.record_verdict(1, "soaked", Verdict.PASSED, "")
        assert wish("1", by="two").generation == 2

    def test_a_wish_that_expects_another_generation_is_refused(self, serving, wish):
        wish("1")
        with pytest.raises(Conflict, match="Generation 0 was expected but 1 is wanted"):
            serving.target.request_release(Release("2", "d"), by="b", why="", kind="deploy", expected=0)
        assert (
            serving.target.request_release(Release("2", "d"), by="b", why="", kind="deploy", expected=1).generation == 2
        )

    def test_of_two_that_expect_the_same_generation_one_wins(self, serving):
        won, lost = [], []

        def want(version: str) -> None:
            try:
                won.append(
                    serving.target.request_release(Release(version, "d"), by=version, why="", kind="deploy", expected=0)
                )
            except Conflict as conflict:
                lost.append(conflict)

        writers = [threading.Thread(target=want, args=[str(number)]) for number in range(6)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert (len(won), len(lost)) == (1, 5)
        assert serving.target.read_desired_state() == won[0]


class TestFence:
    """A run whose wish is no longer the newest must not touch anything."""

    @pytest.mark.parametrize("write", ["stage", "isolate", "split", "withdraw", "switch", "revert", "discard"])
    def test_a_write_for_an_older_generation_is_refused_and_changes_nothing(self, serving, trained, wish, write):
        old, _ = wish("1"), wish("2", by="another run")
        before = serving.target.observe()
        calls = {
            "stage": lambda: serving.target.install_release("blue", old, trained.root / "1"),
            "switch": lambda: serving.target.switch("blue", old),
            "revert": lambda: serving.target.revert("blue", old),
            "isolate": lambda: serving.target.isolate(old),
            "split": lambda: serving.target.split(old, share=5),
            "withdraw": lambda: serving.target.withdraw(old),
            "discard": lambda: serving.target.discard("blue", old),
        }
        with pytest.raises(Conflict, match="Generation 1 is no longer wanted"):
            calls[write]()
        assert serving.target.observe() == before

    @pytest.mark.needs("files")
    def test_a_run_that_was_held_up_does_not_stop_a_slot_that_went_live_since(
        self, serving, one_is_live, staged, wish, trained, monkeypatch
    ):
        old = wish("2")

        def overtaken() -> None:
            monkeypatch.undo()
            serving.target.switch("green", staged("gloomy", "green", by="another run"))

        monkeypatch.setattr(serving.target, "_await_route", overtaken)
        with pytest.raises(Conflict, match="no longer wanted"):
            serving.target.install_release("green", old, trained.root / "2")
        assert serving.answers_with("gloomy")
        assert serving.target.observe().green.ready

    @pytest.mark.needs("files")
    def test_a_lock_that_somebody_keeps_is_one_sentence_and_no_endless_wait(self, serving, wish, monkeypatch):
        monkeypatch.setattr(records, "LOCK_TIMEOUT_S", 0.2)
        with hold_lock(serving.root / ".lock"), pytest.raises(StorageUnavailable, match="is held by another process"):
            wish("1")
        assert wish("1").generation == 1

    @pytest.mark.needs("files")
    def test_drafts_of_writers_that_were_killed_are_gone_with_the_next_wish_once_they_are_old(self, serving, wish):
        old, new = (serving.root / "verdicts" / f".accepted.json.{name}" for name in ("abcd1234", "efgh5678"))
        for draft in (old, new):
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.touch()
        os.utime(old, (0, 0))
        wish("1")
        assert (old.exists(), new.exists()) == (False, True)

    def test_nobody_stages_into_or_empties_the_live_slot(self, serving, one_is_live, trained):
        wanted = serving.target.read_desired_state()
        with pytest.raises(Conflict, match="Slot blue carries live traffic"):
            serving.target.install_release("blue", wanted, trained.root / "1")
        with pytest.raises(Conflict, match="Slot blue carries live traffic"):
            serving.target.discard("blue", wanted)
        assert serving.answers_with("1")


class TestSteps:
    def test_staging_brings_a_release_up_and_no_traffic_to_it_until_the_switch(self, serving, staged):
        wanted = staged("1")
        assert serving.target.observe().blue.release == wanted.release
        assert serving.ask().status_code == 503
        serving.target.switch("blue", wanted)
        answer = serving.ask()  # the switch has taken effect when it returns
        assert (answer.status_code, answer.json()["version"]) == (200, "1")

    @pytest.mark.needs("generation header")
    def test_every_answer_tells_by_which_generation_it_came(self, serving, one_is_live):
        assert serving.ask().headers["x-evergreen-generation"] == "1"

    def test_the_standby_stays_warm_until_its_slot_is_needed(self, serving, one_is_live, staged, wish, trained):
        serving.target.switch("green", staged("2", "green"))
        assert serving.target.observe().route == Route("green", "blue", 2, trial=2)
        assert serving.target.observe().blue.ready and serving.answers_with("2")
        newer = wish("1", by="a third run")
        serving.target.install_release("blue", newer, trained.root / "1")
        assert serving.target.observe().route == Route("green", None, 3, trial=2)
        assert serving.answers_with("2")

    def test_no_request_is_lost_while_traffic_goes_back_and_forth(self, serving, one_is_live, staged, wish, load):
        serving.target.switch("green", staged("2", "green"))
        serving.target.switch("blue", wish("1", by="a person", kind="rollback"))
        serving.target.switch("green", wish("2", by="another", kind="rollback"))
        wait_for(lambda: load.has_grown(since=200))
        assert {*load} == {200} and {*load.versions} == {"1", "2"}

    def test_a_rollback_has_no_standby_and_is_on_no_trial(self, serving, one_is_live, staged, wish):
        serving.target.switch("green", staged("2", "green"))
        serving.target.switch("blue", wish("1", by="a person", kind="rollback"))
        assert serving.target.observe().route == Route("blue", None, 3)
        assert serving.answers_with("1")

    @pytest.mark.needs("split")
    def test_a_share_of_the_requests_goes_to_the_idle_slot_until_it_is_withdrawn(self, serving, one_is_live, staged):
        wanted = staged("2", "green")
        serving.target.split(wanted, share=25)
        assert serving.target.observe().route == Route("blue", None, 2, share=25, trial=1)
        answered = [serving.ask().json()["version"] for _ in range(400)]
        assert 60 < answered.count("2") < 140  # five standard deviations around a hundred
        serving.target.withdraw(wanted)
        assert {serving.ask().json()["version"] for _ in range(50)} == {"1"}

    @pytest.mark.needs("split")
    def test_copies_of_the_requests_reach_the_idle_slot_and_no_answer_of_it_anybody(self, serving, one_is_live, staged):
        serving.target.split(staged("2", "green"), mirror=True)
        before = serving.answered_by("green")
        assert {serving.ask().json()["version"] for _ in range(50)} == {"1"}
        wait_for(lambda: serving.answered_by("green") == before + 50)

    @pytest.mark.needs("split")
    def test_either_slot_takes_over_for_the_other_while_they_share_the_requests(self, serving, one_is_live, staged):
        serving.target.split(staged("2", "green"), share=50)
        serving.kill("slot-green")
        assert {serving.ask().status_code for _ in range(60)} == {200}

    def test_discarding_empties_the_slot(self, serving, one_is_live, staged):
        serving.target.discard("green", staged("2", "green"))
        assert serving.target.observe().green.release is None
        wait_for(lambda: serving.is_empty("green"))
        assert serving.answers_with("1")

    def test_a_kill_between_the_slots_file_and_its_restart_is_mended_by_the_next_look(self, serving, wish, trained):
        wanted = wish("2")
        serving.go_live("blue", wanted, trained.root / "2")  # writes the file, then nudges
        assert serving.answers_with("2")
        assert serving.target.observe().blue.ready

    def test_an_artifact_that_is_not_what_its_digest_says_never_reaches_a_slot(self, serving, wish, trained, tmp_path):
        wanted = wish("1")
        shutil.copytree(trained.root / "1", tmp_path / "tampered")
        (tmp_path / "tampered" / "model.skops").write_bytes(b"something else")
        with pytest.raises(ArtifactRejected, match="has the digest"):
            serving.target.install_release("blue", wanted, tmp_path / "tampered")
        assert serving.target.observe().blue.release is None

    def test_a_verdict_stands_beside_the_target_for_whoever_continues(self, serving):
        serving.target.record_verdict(7, "accepted", Verdict.FAILED, "answered 422")
        assert serving.target.read_evidence(7).accepted is Verdict.FAILED
        assert serving.target.read_verdicts(7) == {"accepted": {"verdict": "failed", "why": "answered 422"}}
        assert serving.target.read_evidence(8).accepted is Verdict.PENDING


class TestSlots:
    def test_a_slot_that_is_live_tells_the_blessing_it_verified(self, serving, one_is_live):
        told = serving.describe()
        assert told["blessing"] == serving.target.read_desired_state().blessing
        assert told["blessed"]["hashes"]["digest"] == told["digest"]

    def test_a_release_nobody_blessed_never_becomes_ready(self, serving, one_is_live, trained):
        wanted = serving.target.request_release(trained.release("2"), "a thief", "to see", "deploy")
        serving.target.install_release("green", wanted, trained.root / "2")
        wait_for(lambda: serving.target.explain_refusal("green", wanted.release))
        assert "names no blessing of version 2" in serving.target.explain_refusal("green", wanted.release)
        assert serving.answers_with("1")

    @pytest.mark.needs("guarded admin")
    def test_the_admin_routes_are_not_reached_through_the_proxy_not_even_with_the_token(self, serving, one_is_live):
        token = {"authorization": f"Bearer {serving.stack.secret.serving_token}"}
        with httpx.Client(trust_env=False, headers=token) as admin:
            outside = admin.post(f"{serving.addresses.proxy}/admin/reload")
            inside = admin.post(f"{serving.addresses.slots['blue']}/admin/reload")
        assert (outside.status_code, inside.status_code) == (403, 200)


class TestKills:
    @pytest.mark.needs("failover")
    def test_a_killed_live_slot_fails_over_to_the_standby_and_comes_back_by_itself(self, serving, one_is_live, staged):
        serving.target.switch("green", staged("2", "green"))
        assert serving.answers_with("2")
        serving.kill("slot-green")
        answers = [serving.ask() for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200}
        wait_for(lambda: serving.target.observe().green.ready)
        wait_for(lambda: serving.answers_with("2"))

    def test_a_slot_alone_comes_back_with_what_it_held_and_asks_nobody_for_it(self, serving, one_is_live):
        serving.kill("slot-blue")
        wait_for(lambda: not serving.answers_with("1"))
        wait_for(lambda: serving.answers_with("1"))
        assert serving.target.observe().blue.ready

    @pytest.mark.needs("proxy")
    def test_a_proxy_that_was_killed_comes_back_on_the_same_route(self, serving, one_is_live):
        serving.kill("envoy")
        wait_for(lambda: serving.answers_with("1"))
        assert serving.ask().headers["x-evergreen-generation"] == "1"
