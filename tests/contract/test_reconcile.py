"""Each disagreement made by hand on the real target, healed by one run, and gone for the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import timedelta

import pytest

from include.alerting.outbox import Outbox
from include.kernel.errors import NotBlessed, RecordDamaged, ServiceUnavailable
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger
from include.kernel.words.verdicts import Verdict
from include.model.integrity.artifact_integrity import copy_verified
from include.registry.base import ReleaseMarks
from include.release.core.reconcile import ReconcileTimeouts, TargetState
from include.release.core.rollout import Release, ReleasePlan, Route, Step
from include.release.service.reconciler import Reconciler
from include.release.targets.local import envoy_routes
from include.release.targets.local.repair import LocalRepair
from tests.ground import wait_for


@dataclass
class Shelf(ReleaseMarks):
    """As much of a registry as reconciliation asks: an alias and marks."""

    alias: str | None = "1"
    marks: list[str] = field(default_factory=list)
    away: bool = False

    def find_champion(self) -> str | None:
        if self.away:
            raise ServiceUnavailable("MLflow is away.")
        return self.alias

    def fetch_blessing(self, version: str) -> str:
        raise NotBlessed(f"Version {version} carries no blessing.")

    def promote(self, version: str) -> None:
        self.alias, self.marks = version, []

    def list_soaking(self) -> list[str]:
        return self.marks

    def unmark_soaking(self, versions) -> None:
        self.marks = [mark for mark in self.marks if mark not in versions]


class World:
    """The real target, a ledger in a directory, and a shelf."""

    def __init__(self, serving, rollout, place) -> None:
        self.serving, self.rollout, self.shelf = serving, rollout, Shelf()
        self.ledger, self.place = LocalLedger(place / "ledger.jsonl"), place
        self.patience = ReconcileTimeouts(settle_s=0, abandoned_s=600, approval_s=600)
        self.upkeep = self._upkeep()

    def _upkeep(self):
        token = self.serving.stack.secret.serving_token
        return LocalRepair(self.serving.root, self.serving.addresses, token, 100)

    def served(self, release: Release) -> None:
        paper = next((self.serving.root / "blessings").glob("*.json")).read_text()
        details = {"digest": release.digest, "generation": 1, "blessing": paper}
        self.ledger.append(Entry(what="release.live", subject=release.version, who="deploy", why="", details=details))

    def reconcile(self):
        outbox = Outbox(self.place / "alerts", "docs/runbook.md", timedelta(hours=1))
        made = Reconciler(self.upkeep, self.shelf, self.ledger, outbox, self.patience, self.rollout)
        return made.run("a test")

    def heals(self, *parts: str):
        """One run heals exactly these, tells them, and the next run finds nothing."""
        outcome = self.reconcile()
        assert outcome.unresolved == [] and len(outcome.repaired) == len(parts), outcome
        assert all(part in sentence for part, sentence in zip(parts, outcome.repaired, strict=True)), outcome
        entries = [entry.why for entry in self.ledger.read_entries("reconcile.healed")]
        assert entries[-len(parts) :] == outcome.repaired
        again = self.reconcile()
        assert (again.state, again.repaired, again.unresolved) == (TargetState.SETTLED, [], [])


@pytest.fixture
def world(serving, one_is_live, rollout, trained, tmp_path):
    made = World(serving, rollout, tmp_path)
    made.served(trained.release("1"))
    if made.upkeep.read_slot_report("green").release:  # what an earlier test left in the process
        made.upkeep.reload("green")
    return made


def route_file(serving):
    return serving.root / "route" / "routes.yaml"


def slot_file(serving, colour: str = "blue"):
    return serving.root / "slots" / f"{colour}.json"


class TestRegistry:
    def test_where_all_agree_nothing_is_found_touched_or_told(self, world):
        before = world.upkeep.observe()
        outcome = world.reconcile()
        assert (outcome.sentence, world.upkeep.observe()) == ("settled: nothing disagrees", before)
        assert list(world.ledger.read_entries("reconcile.healed")) == [] and not (world.place / "alerts").exists()

    def test_an_alias_behind_follows_the_traffic(self, world):
        world.shelf.alias = None
        world.heals("the champion is no version")
        assert world.shelf.alias == "1"

    def test_an_alias_somebody_moved_comes_back(self, world):
        world.shelf.alias = "9"
        world.heals("the champion is version 9")

    def test_a_mark_that_was_left_goes(self, world):
        world.shelf.marks = ["1"]
        world.heals("version 1 is marked so")

    def test_a_registry_that_is_away_is_no_failure_and_is_compared_by_the_next_run(self, world):
        world.shelf.alias, world.shelf.away = None, True
        assert world.reconcile().sentence.endswith("the registry is away and was not compared")
        world.shelf.away = False
        world.heals("the champion is no version")

    def test_a_release_whose_end_was_never_entered_is_entered_once_with_its_blessing(self, world, release):
        release("2", by="next")
        world.heals("Version 2 serves, and the ledger tells of version 1", "the champion is version 1")
        [_, second] = world.ledger.read_entries("release.live")
        assert (second.subject, second.details["generation"]) == ("2", 2)
        assert json.loads(second.details["blessing"])["signatures"]
        assert not world.ledger.append(second), "go_live, should it come after all, finds it entered"


class TestProcesses:
    def test_a_proxy_that_was_stopped_is_started(self, world):
        world.serving.stop("envoy")
        world.heals("The proxy does not answer")
        assert world.serving.answers_with("1")

    def test_a_route_the_proxy_did_not_take_over_is_given_to_it_again(self, world):
        other = envoy_routes.render(Route("blue", None, 1, trial=0))
        route_file(world.serving).write_text(other)  # in place: the proxy wakes for a rename alone
        assert not world.upkeep.read_effective_route()[1]
        world.heals("The proxy does not follow the record of the route")

    def test_a_live_slot_that_was_stopped_is_started(self, world):
        world.serving.stop("slot-blue")
        world.heals("The process of slot blue does not answer")
        assert world.serving.answers_with("1")

    def test_a_standby_that_runs_nothing_of_what_its_file_names_reads_it_again(self, world, trained):
        wanted = world.serving.want(trained.release("2"), by="next")
        copy_verified(trained.root / "2", world.serving.root / "artifacts", wanted.release.digest)
        world.serving.want(trained.release("1"), by="back", kind="rollback")
        content = {**asdict(wanted.release), "generation": 2, "blessing": wanted.blessing}
        slot_file(world.serving, "green").write_text(json.dumps(content))
        world.heals("Slot green holds")
        assert world.upkeep.observe().green.ready and world.serving.answers_with("1")

    def test_a_slot_that_cannot_run_it_is_told_to_a_person_once_a_day_and_nothing_else_suffers(self, world, trained):
        content = {**asdict(trained.release("2")), "generation": 2, "blessing": None}
        slot_file(world.serving, "green").write_text(json.dumps(content))
        for _ in range(2):
            [told] = world.reconcile().unresolved
            assert "Slot green cannot serve version 2" in told and "names no blessing" in told
        assert len(list(world.ledger.read_entries("reconcile.found"))) == 1
        assert world.serving.answers_with("1")


class TestRecords:
    @pytest.mark.parametrize("content", [None, "", "{"])
    def test_a_lost_route_is_what_the_proxy_still_follows(self, world, content):
        before = world.upkeep.observe().route
        route_file(world.serving).unlink() if content is None else route_file(world.serving).write_text(content)
        world.heals("The record of the route is lost")
        assert world.upkeep.observe().route == before and world.serving.answers_with("1")

    def test_a_lost_route_and_a_dead_proxy_are_told_by_the_ledger(self, world):
        world.serving.stop("envoy")
        route_file(world.serving).write_text("nonsense")
        outcome = world.reconcile()
        world.serving.start_all()
        assert wait_for(lambda: world.serving.answers_with("1")), outcome
        assert world.reconcile().sentence == "settled: nothing disagrees"

    @pytest.mark.parametrize("content", ["", "[]", '{"release": 1}'])
    def test_a_wish_that_cannot_be_read_stops_every_release_with_a_sentence_and_is_written_anew(
        self, world, trained, content
    ):
        (world.serving.root / "wanted.json").write_text(content)
        with pytest.raises(RecordDamaged, match=r"wanted\.json cannot be read .* `make reconcile` writes it anew"):
            world.serving.want(trained.release("2"))
        world.heals("The record of what is wanted is lost")
        assert world.upkeep.read_desired_state().release == trained.release("1")
        assert world.serving.want(trained.release("2")).generation == 3, "1 and 2 were"

    def test_a_lost_file_of_the_live_slot_is_written_anew_without_a_failed_request(self, world):
        slot_file(world.serving).unlink()
        world.heals("The record of slot blue, which is live, is lost")
        assert world.serving.answers_with("1")
        world.serving.kill("slot-blue")
        assert wait_for(lambda: world.upkeep.observe().blue.ready), "what was written is what it comes back with"

    def test_a_file_of_the_live_slot_that_was_edited_is_put_back_before_the_slot_reads_it(self, world, trained):
        content = {**asdict(trained.release("2")), "generation": 1, "blessing": None}
        slot_file(world.serving).write_text(json.dumps(content))
        world.heals("its record was changed to name version 2")
        assert world.serving.answers_with("1")

    def test_a_damaged_file_of_the_idle_slot_empties_it(self, world):
        slot_file(world.serving, "green").write_text("{")
        world.heals("The record of slot green cannot be read")
        assert world.upkeep.observe().green.release is None


class TestReleases:
    @pytest.fixture
    def tried(self, world, staged):
        """Version 2 with a share of the requests, as a canary that is under way."""
        wanted = staged("2", "green", by="next")
        world.upkeep.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
        world.upkeep.split(wanted, share=20)
        return wanted

    def test_one_that_is_under_way_is_left_alone_and_named(self, world, trained, tried):
        world.serving.want(trained.release("2"), by="next", plan=ReleasePlan(weights=(20,)))
        before = world.upkeep.observe()
        world.shelf.alias = "9"
        outcome = world.reconcile()
        assert (outcome.state, outcome.repaired, outcome.unresolved) == (TargetState.RELEASING, [], [])
        assert world.upkeep.observe() == before and world.shelf.alias == "9"

    def test_a_share_that_was_left_behind_is_taken_back(self, world, tried):
        world.upkeep.record_verdict(tried.generation, "canary-1", Verdict.FAILED, "worse")
        world.patience = ReconcileTimeouts(settle_s=0, abandoned_s=-1, approval_s=600)
        outcome = world.reconcile()
        assert "has stood at withdraw" in outcome.repaired[0] and outcome.unresolved == []
        assert world.upkeep.observe().green.release is None and not world.upkeep.observe().route.is_split
        assert world.reconcile().sentence == "settled: nothing disagrees"

    def test_a_soak_that_nobody_watched_is_finished_and_only_then_is_it_the_champion(self, world, staged):
        wanted = staged("2", "green", by="next")
        world.upkeep.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
        world.upkeep.switch("green", wanted)
        soaking = world.reconcile()
        assert (soaking.state, soaking.repaired, world.shelf.alias) == (TargetState.SOAKING, [], "1")
        world.patience = ReconcileTimeouts(settle_s=0, abandoned_s=-1, approval_s=600)
        world.heals("has stood at soak", "the ledger tells of version 1", "the champion is version 1")
        assert world.shelf.alias == "2" and world.serving.answers_with("2")

    def test_a_soak_that_nobody_watched_and_that_fails_goes_back(self, world, staged):
        wanted = staged("2", "green", by="next")
        world.upkeep.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
        world.upkeep.switch("green", wanted)
        world.upkeep.record_verdict(wanted.generation, "soaked", Verdict.FAILED, "2 probes failed")
        world.patience = ReconcileTimeouts(settle_s=0, abandoned_s=-1, approval_s=600)
        world.heals("has stood at revert")
        assert world.serving.answers_with("1") and world.shelf.alias == "1"

    def test_a_release_that_is_reconciled_after_every_step_goes_as_it_would_alone(self, world, trained, rollout):
        wanted, driver, seen = world.serving.want(trained.release("2"), by="next"), rollout(), []
        while not seen or not seen[-1][0].is_terminal:
            step = driver.advance(wanted.generation)
            outcome = world.reconcile()
            seen.append((step, outcome.state, outcome.repaired + outcome.unresolved))
        steps = list(dict.fromkeys(step for step, *_ in seen))
        assert steps == [Step.STAGE, Step.AWAIT, Step.VERIFY, Step.SWITCH, Step.SOAK, Step.DONE]
        healed = [sentence for _, _, told in seen for sentence in told]
        assert healed == [
            "Version 2 serves, and the ledger tells of version 1; it is entered.",
            "Version 2 serves, and the champion is version 1; the alias follows the traffic.",
        ], "only what go_live would have done, once the soak was over"
        assert TargetState.SOAKING in {state for _, state, _ in seen}
