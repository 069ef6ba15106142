from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.assets import DRIFT_DETECTED, MODEL_BLESSED, MODEL_LIVE
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.approval import ApproveOperator, ApproveReleaseOperator
from evergreen.operators.gate import GateOperator
from evergreen.operators.registry import BlessOperator, PromoteOperator
from evergreen.operators.rollout import RolloutOperator
from evergreen.results import read_output
from include.kernel.code_digest import JUDGING, compute_code_digest
from include.kernel.files import write_atomic
from include.manifest import read_manifest
from include.model.blessing.blessing import compute_list_digest, compute_report_digest
from include.release.core.rollout import Route
from include.release.targets.local import envoy_routes
from tests.blessed import REPORT
from tests.plugins.conftest import context
from tests.plugins.test_approval import dag

EPISODE = {"key": "drift-3-2026-08-20", "sentence": "Income moved", "moved": {"Income": 0.4}}
RESULT = {"verdict": "yes", "summary": "a week of rows", "outputs": {"id": "abc", "rows": 90}}


def announcement(told, **options):
    options = {"fields": list(told.get("outputs", told)), **options}
    return AnnounceOperator(task_id="announce", asset=DRIFT_DETECTED, result=told, **options)


def emitted(found, asset=DRIFT_DETECTED):
    return found["outlet_events"][asset].extra


class TestAnnounce:
    def test_the_named_fields_travel_with_the_intent(self, world):
        found = context()
        announcement(RESULT, fields=["rows"]).execute(found)
        assert emitted(found) == {"rows": 90, "intent": "live"}

    @pytest.mark.parametrize("intent", ["historical", "rehearsal"])
    def test_only_a_live_run_announces(self, world, intent):
        found = context(params={"intent": intent})
        with pytest.raises(AirflowSkipException, match=f"A {intent} run announces nothing"):
            announcement(RESULT).execute(found)
        assert emitted(found) == {}

    def test_a_backfill_announces_nothing_whatever_its_form_says(self, world):
        with pytest.raises(AirflowSkipException, match="historical"):
            announcement(RESULT).execute(context(run_type="backfill", params={"intent": "live"}))

    def test_a_no_is_not_announced_and_the_reason_is_told(self, world):
        with pytest.raises(AirflowSkipException, match="no rows were delivered"):
            announcement({**RESULT, "verdict": "no", "summary": "no rows were delivered"}).execute(context())

    def test_a_key_is_announced_once_however_many_runs_find_it(self, world):
        announcement(EPISODE, once="key").execute(context(run_id="first"))
        later = context(run_id="second")
        with pytest.raises(AirflowSkipException, match="was announced already"):
            announcement(EPISODE, once="key").execute(later)
        assert emitted(later) == {}

    def test_a_retry_of_the_run_that_announced_it_announces_it(self, world):
        for _ in range(2):
            found = context(run_id="first")
            announcement(EPISODE, once="key").execute(found)
            assert emitted(found)["key"] == EPISODE["key"]
        assert len(list(world.open_ledger().read_entries("drift.detected"))) == 1

    def test_a_skipped_announcement_leaves_the_key_for_a_live_run(self, world):
        with pytest.raises(AirflowSkipException):
            announcement(EPISODE, once="key").execute(context(run_type="backfill"))
        found = context(run_id="live")
        announcement(EPISODE, once="key").execute(found)
        assert emitted(found)["key"] == EPISODE["key"]


class TestGate:
    @staticmethod
    def choose(verdict, **run):
        told = {"summary": "cost falls by 3 %", "outputs": {"run_id": "r1", "gate": {"verdict": verdict}}}
        return GateOperator(task_id="gate", result=told).choose_branch(context(**run))

    @pytest.mark.parametrize(
        "ask, passed, inconclusive",
        [("never", "bless", None), ("inconclusive", "bless", "approve"), ("always", "approve", "approve")],
    )
    def test_the_manifest_says_when_a_person_is_asked(self, world, small, ask, passed, inconclusive):
        small(**{"gate.approval": ask})
        assert [self.choose(verdict) for verdict in ("passed", "inconclusive")] == [passed, inconclusive]

    def test_a_refused_model_goes_nowhere_and_that_is_no_failure(self, world, small):
        small(**{"gate.approval": "always"})
        assert self.choose("refused") is None
        [entry] = world.open_ledger().read_entries()
        assert (entry.what, entry.subject, entry.why) == ("gate.refused", "r1", "cost falls by 3 %")

    @pytest.mark.parametrize("run", [{"run_type": "backfill"}, {"params": {"intent": "rehearsal"}}])
    def test_nobody_is_asked_about_a_training_that_is_not_live(self, world, small, run):
        small(**{"gate.approval": "always"})
        assert [self.choose(verdict, **run) for verdict in ("passed", "inconclusive")] == ["bless", None]

    def test_a_retry_writes_no_second_decision(self, world):
        for _ in range(2):
            self.choose("passed")
        assert len(list(world.open_ledger().read_entries())) == 1


def test_the_monitor_watches_what_the_route_leads_to(world, monkeypatch):
    monkeypatch.setattr("evergreen.dag_defaults.ConnectionsHook", lambda: world)
    environment = dag("monitor").get_template_env()
    [template] = dag("monitor").get_task("measure").job_params.values()
    assert environment.from_string(template).render() == ""
    serve(world, "7")
    assert world.shelf.champion is None and environment.from_string(template).render() == "7"


class TestBless:
    """What is signed, and what is not; the registry is a small one, the key and the signature are real."""

    @staticmethod
    def told(**changes):
        outputs = {
            "gate": REPORT,
            "digest": "5" * 64,
            "run_id": "r1",
            "snapshots": ["c" * 64],
            "manifest": read_manifest().digest,
            "code": compute_code_digest(*JUDGING),
        }
        return {"verdict": "yes", "summary": "passed: it is better", "outputs": outputs | changes}

    def bless(self, found=None, approval=None, **changes):
        return BlessOperator(task_id="bless", result=self.told(**changes), approval=approval).execute(
            found or context()
        )

    def test_a_model_that_passed_is_registered_signed_and_told(self, world):
        found = context(params={"as_of": "2026-08-20"})
        assert self.bless(found) == emitted(found, MODEL_BLESSED)
        assert emitted(found, MODEL_BLESSED) == {"version": "1", "as_of": "2026-08-20", "intent": "live"}
        blessing = world.verify_blessing("1", world.shelf.blessings["1"], "5" * 64)
        assert (blessing.manifest, blessing.code) == (read_manifest().digest, compute_code_digest(*JUDGING))
        assert (blessing.report, blessing.data, blessing.approval) == (compute_report_digest(REPORT), ("c" * 64,), None)
        assert [check.name for check in blessing.checks] == ["auc"]

    def test_the_last_line_says_which_version_is_blessed_and_why(self, world, capsys):
        self.bless()
        assert "version 1 is blessed: passed: it is better" in capsys.readouterr().out.splitlines()[-1]

    def test_a_retry_signs_the_same_again(self, world):
        first = self.bless() and world.shelf.blessings.copy()
        assert self.bless() and world.shelf.blessings == first

    def test_the_one_who_approved_stands_in_the_blessing(self, world):
        yes = {"who": "ada", "why": "the old one is worse", "at": "2026-08-20T09:00:00Z"}
        self.bless(approval=yes, gate=REPORT | {"verdict": "inconclusive"})
        assert world.verify_blessing("1", world.shelf.blessings["1"]).approval.who == "ada"

    def test_a_long_window_with_many_slices_and_much_prose_fits_the_tag_and_its_lists_lie_beside(self, world):
        days = [f"{number:064x}" for number in range(5000)]
        checks = [
            REPORT["checks"][0] | {"name": f"slice Market={number}", "family": "slices"} for number in range(1000)
        ]
        prose = "\N{GRINNING FACE}" * 50_000
        report = REPORT | {"verdict": "inconclusive", "checks": checks, "sentence": f"inconclusive: {prose}"}
        yes = {"who": "ada", "why": prose, "at": "2026-08-20T09:00:00Z"}
        self.bless(approval=yes, gate=report, snapshots=days)
        envelope, beside = world.shelf.blessings["1"], json.loads(world.shelf.papers["1"]["blessing.json"])
        blessing = world.verify_blessing("1", envelope, "5" * 64)
        assert len(envelope) <= 100_000
        assert beside["data"] == days and len(beside["checks"]) == 1000
        for name in ("data", "checks"):
            assert getattr(blessing, name).sha256 == compute_list_digest(beside[name])

    @pytest.mark.parametrize(
        "changes, said",
        [
            ({"gate": REPORT | {"verdict": "refused"}}, "nobody's approval replaces a pass"),
            ({"gate": REPORT | {"verdict": "inconclusive"}}, "nobody approved"),
            ({"manifest": "e" * 64}, "The manifest was changed after this model was judged"),
            ({"code": "e" * 64}, "The code was changed after this model was judged"),
        ],
    )
    def test_what_may_not_be_signed_is_not_even_registered(self, world, changes, said):
        with pytest.raises(AirflowFailException, match=said):
            self.bless(**changes)
        assert world.shelf.versions == {} == world.shelf.blessings


OUTPUTS = {"version": "7", "digest": "d", "generation": 4}
WENT_WELL = {"verdict": "yes", "summary": "serves all traffic", "outputs": OUTPUTS}


def serve(world, version: str) -> None:
    root = world.root / "serving"
    write_atomic(root / "route" / "routes.yaml", envoy_routes.render(Route("blue", None, 4)))
    write_atomic(root / "slots" / "blue.json", json.dumps({"version": version, "digest": "d", "generation": 4}))


class TestRegistryOperators:
    @pytest.mark.parametrize("found", [context(run_type="backfill"), context(params={"intent": "rehearsal"})])
    def test_only_a_live_training_is_blessed(self, world, found):
        with pytest.raises(AirflowSkipException, match="never blessed"):
            BlessOperator(task_id="bless", result=RESULT).execute(found)
        assert emitted(found, MODEL_BLESSED) == {}

    def test_a_champion_is_made_of_what_serves_and_not_of_what_an_old_run_left(self, world):
        """go_live, cleared on the run of version 6, would else tell everybody that 6 is live."""
        serve(world, "7")
        found = context()
        with pytest.raises(AirflowSkipException, match="Version 6 does not serve any more, version 7 does"):
            PromoteOperator(task_id="go_live", result=WENT_WELL | {"outputs": OUTPUTS | {"version": "6"}}).execute(
                found
            )
        with pytest.raises(AirflowSkipException, match="Version 7 does not serve any more, version 7 does"):
            other = WENT_WELL | {"outputs": OUTPUTS | {"digest": "e"}}  # of the same number, and another artifact
            PromoteOperator(task_id="go_live", result=other).execute(found)
        assert world.shelf.champion is None and list(world.open_ledger().read_entries()) == []
        assert emitted(found, MODEL_LIVE) == {}

    @pytest.mark.parametrize(
        "operator",
        [
            PromoteOperator(task_id="a", result=None),
            PromoteOperator(task_id="b", result={"verdict": "yes"}),
            BlessOperator(task_id="c", result=None),
            GateOperator(task_id="d", result=None),
            RolloutOperator(task_id="e", release_request=None),
            ApproveOperator(task_id="f", manifest=read_manifest(), result=None),
            ApproveReleaseOperator(task_id="g", manifest=read_manifest(), result=None),
            AnnounceOperator(task_id="h", asset=DRIFT_DETECTED, result=None, fields=["key"]),
            AnnounceOperator(task_id="i", asset=DRIFT_DETECTED, result={"sentence": "s"}, fields=[], once="key"),
        ],
        ids=lambda operator: f"{type(operator).__name__} {operator.task_id}",
    )
    def test_without_the_result_of_the_task_before_a_task_fails_at_once_in_one_sentence(self, world, operator):
        with pytest.raises(AirflowFailException, match="left no result to go on with, as when it was marked success"):
            operator.execute(context())

    def test_so_does_a_template(self):
        class NoResult:
            def xcom_pull(self, task_ids):
                return {"train": {"outputs": {"url": "u"}}}.get(task_ids)

        assert read_output(NoResult(), "train", "url") == "u"
        for task, name in (("train", "run_id"), ("evaluate", "run_id")):
            with pytest.raises(AirflowFailException, match=f"The task {task} left no result"):
                read_output(NoResult(), task, name)

    def test_a_release_that_went_well_becomes_the_champion_and_is_told(self, world):
        serve(world, "7")
        found, told = context(), WENT_WELL
        PromoteOperator(task_id="go_live", result=told).execute(found)
        assert world.shelf.champion == "7"
        assert emitted(found, MODEL_LIVE) == {"version": "7", "intent": "live"}
        assert [entry.subject for entry in world.open_ledger().read_entries("release.live")] == ["7"]

    def test_one_that_did_not_moves_nothing(self, world):
        told = {"verdict": "no", "summary": "version 7 was rejected", "outputs": {"version": "7"}}
        with pytest.raises(AirflowSkipException, match="version 7 was rejected"):
            PromoteOperator(task_id="go_live", result=told).execute(context())
        assert world.shelf.champion is None
        assert list(world.open_ledger().read_entries()) == []
