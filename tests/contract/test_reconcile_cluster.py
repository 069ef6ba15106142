"""The same looks at a cluster: each disagreement made by hand on nodes in small, healed by one run, and then gone."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from include.kernel.errors import RecordDamaged
from include.kernel.words.verdicts import Verdict
from include.release.core.reconcile import ReconcileTimeouts, TargetState
from include.release.core.rollout import Release, Route
from include.release.targets.kubernetes.repair import KubernetesRepair
from tests.contract.test_reconcile import Shelf
from tests.contract.test_reconcile import World as LocalWorld
from tests.ground import wait_for
from tests.kube_nodes import CORE, DEPLOYMENTS
from tests.served_cluster import TOKEN, on_nodes

SERVICE = f"{CORE}/services/predictions"
ROUTE, WANTED, RELEASE = "evergreen/route", "evergreen/wanted", "evergreen/release"


class World(LocalWorld):
    """The cluster in small instead of files and Envoy; ledger, shelf and what `heals` asks are the same."""

    def _upkeep(self) -> KubernetesRepair:
        serving = self.serving
        made = KubernetesRepair(
            serving.target._cluster,
            serving.target._spec,
            serving.target._namespace,
            serving.root,
            serving.addresses.slots,
            serving.addresses.proxy,
            TOKEN,
        )
        made.slot_timeout_s = 100
        return made

    def annotate(self, name: str, value: str | None, path: str = SERVICE) -> None:
        """As a person with kubectl: on the Service, or on a Deployment's template."""

        def change(each):
            place = each["spec"]["template"] if path != SERVICE else each
            notes = place["metadata"].setdefault("annotations", {})
            notes.pop(name, None) if value is None else notes.update({name: value})

        self.serving.api.change(path, change)


@pytest.fixture
def serving(tmp_path):
    with on_nodes(tmp_path) as served:
        yield served


@pytest.fixture
def world(serving, one_is_live, rollout, trained, tmp_path):
    made = World(serving, rollout, tmp_path)
    made.served(trained.release("1"))
    return made


def test_where_all_agree_nothing_is_found_touched_or_told(world):
    before = world.upkeep.observe()
    outcome = world.reconcile()
    assert (outcome.sentence, world.upkeep.observe()) == ("settled: nothing disagrees", before)


def test_an_alias_behind_follows_the_traffic_and_a_mark_that_was_left_goes(world):
    world.shelf.alias = None
    world.heals("the champion is no version")
    world.shelf = Shelf(alias="1", marks=["1"])
    world.heals("version 1 is marked so")


def test_a_release_whose_end_was_never_entered_is_entered_once_with_its_blessing(world, release):
    release("2", by="next")
    world.heals("Version 2 serves, and the ledger tells of version 1", "the champion is version 1")
    [_, second] = world.ledger.read_entries("release.live")
    assert (second.subject, second.details["generation"]) == ("2", 2)
    assert json.loads(second.details["blessing"])["signatures"]


def test_a_selector_that_was_moved_by_hand_comes_back(world, staged):
    world.upkeep.switch("green", staged("2", "green", by="next"))
    world.upkeep.record_verdict(2, "accepted", Verdict.PASSED, "")
    world.upkeep.record_verdict(2, "soaked", Verdict.PASSED, "")
    world.heals("ledger tells of version 1", "champion is version 1")
    world.serving.api.change(SERVICE, lambda each: each["spec"]["selector"].update({"evergreen/slot": "blue"}))
    assert wait_for(lambda: world.serving.answers_with("1"))
    world.heals("The proxy does not follow the record of the route")
    assert world.serving.answers_with("2")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_lost_route_is_what_the_selector_still_says(world, content):
    world.annotate(ROUTE, content)
    world.heals("The record of the route is lost")
    assert world.upkeep.observe().route == Route("blue", None, 1) and world.serving.answers_with("1")


@pytest.mark.parametrize("content", ["[]", '{"release": 1}'])
def test_a_wish_that_cannot_be_read_stops_every_release_and_is_written_anew(world, trained, content):
    world.annotate(WANTED, content)
    with pytest.raises(
        RecordDamaged, match=r"evergreen/wanted of Service predictions cannot be read .* writes it anew"
    ):
        world.serving.want(trained.release("2"))
    world.heals("The record of what is wanted is lost")
    assert world.upkeep.read_desired_state().release == trained.release("1")
    assert world.serving.want(trained.release("2")).generation == 3, "1 and 2 were"


def test_a_live_slot_that_was_scaled_to_nothing_gets_its_pods_back(world):
    world.serving.api.change(f"{DEPLOYMENTS}/slot-blue", lambda each: each["spec"].update(replicas=0))
    wait_for(lambda: world.serving.is_empty("blue"))
    world.heals("The process of slot blue does not answer")
    assert world.serving.answers_with("1")


def test_a_live_slot_whose_release_was_edited_is_put_back_while_its_pod_serves(world, trained):
    content = {**asdict(trained.release("2")), "generation": 1, "blessing": None}
    world.annotate(RELEASE, json.dumps(content), f"{DEPLOYMENTS}/slot-blue")
    assert world.serving.answers_with("1"), "no pod of it becomes ready: nobody blessed it"
    outcome = world.reconcile()
    assert wait_for(lambda: world.upkeep.observe().blue.ready), outcome
    assert world.upkeep.observe().blue.release == Release("1", trained.release("1").digest)
    assert world.serving.answers_with("1")


def test_a_damaged_record_of_the_idle_slot_empties_it(world, staged):
    staged("2", "green", by="next")
    world.serving.target.record_verdict(2, "accepted", Verdict.FAILED, "worse")
    world.annotate(RELEASE, "{", f"{DEPLOYMENTS}/slot-green")
    outcome = world.reconcile()
    assert any("The record of slot green cannot be read" in each for each in outcome.repaired), outcome
    wait_for(lambda: world.serving.is_empty("green"))
    assert world.upkeep.observe().green.release is None and world.serving.answers_with("1")


def test_a_soak_that_nobody_watched_is_finished_and_only_then_is_it_the_champion(world, staged):
    wanted = staged("2", "green", by="next")
    world.upkeep.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
    world.upkeep.switch("green", wanted)
    assert world.reconcile().state is TargetState.SOAKING and world.shelf.alias == "1"
    world.patience = ReconcileTimeouts(settle_s=0, abandoned_s=-1, approval_s=600)
    world.heals("has stood at soak", "the ledger tells of version 1", "the champion is version 1")
    assert world.shelf.alias == "2" and world.serving.answers_with("2")


def test_a_route_that_is_lost_during_a_soak_is_still_on_trial(world, staged):
    wanted = staged("2", "green", by="next")
    world.upkeep.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
    world.upkeep.switch("green", wanted)
    world.annotate(ROUTE, None)
    world.reconcile()
    assert world.upkeep.observe().route == Route("green", None, 2, trial=2)
    assert world.upkeep.read_records()[2].trial is Verdict.PENDING


def test_a_release_under_way_is_left_alone_and_has_just_been_written(world, wish):
    wanted = wish("2", by="next")
    assert world.upkeep.measure_idle_s(wanted.generation) < 60
    assert world.reconcile().state is TargetState.RELEASING
