"""The task that holds registry and world against each other; the looking itself is tests/contract/test_reconcile."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from evergreen.operators.reconcile import ReconcileOperator
from include.alerting.core.alerts import Alert, Severity
from include.alerting.wiring import open_outbox
from include.manifest import read_manifest
from include.release.core.reconcile import TargetState
from include.release.service.reconciler import Outcome
from tests.plugins.conftest import context


@dataclass
class Looking:
    outcome: Outcome
    asked: list[str] = field(default_factory=list)

    def run(self, who: str) -> Outcome:
        self.asked.append(who)
        return self.outcome


@pytest.fixture
def looking(world, small):
    small()
    world.upkeep = Looking(Outcome(TargetState.SETTLED, ["the alias followed"], ["slot blue cannot serve"]))
    return world.upkeep


def reconcile(**run):
    return ReconcileOperator(task_id="reconcile").execute(context(**run))


def test_what_was_healed_and_what_is_left_is_the_tasks_answer_and_fails_nothing(looking):
    found = reconcile()
    assert (found["state"], found["healed"], found["found"]) == (
        "settled",
        ["the alias followed"],
        ["slot blue cannot serve"],
    )
    assert found["sentence"] == "settled: 1 healed, 1 for a person" and looking.asked == ["a_dag a_run"]


@pytest.mark.parametrize("run", [{"run_type": "backfill"}, {"params": {"intent": "rehearsal"}}])
def test_a_run_that_is_not_live_looks_at_nothing(looking, run):
    assert reconcile(**run)["state"] == "untouched" and looking.asked == []


def test_a_cluster_is_looked_after_like_one_machine(looking, small):
    small(target="kubernetes")
    assert reconcile()["state"] == "settled" and looking.asked == ["a_dag a_run"]


def test_every_run_tells_what_waits_to_be_told(looking, tmp_path):
    open_outbox(read_manifest()).put(Alert(severity=Severity.INFO, title="t", text="", runbook="roll-back", key="k"))
    assert len(list((tmp_path / "store" / "alerts" / "waiting").iterdir())) == 1
    reconcile()
    assert list((tmp_path / "store" / "alerts" / "waiting").iterdir()) == []
