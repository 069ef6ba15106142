"""What sensors wait for: conditions of the stored state, asked again and again until there is an answer.

They stand here, and not in the sensors, because a worker and the triggerer must ask in exactly the same words. Every
argument and every answer is plain JSON. No condition needs pandas or a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from include.data.core.snapshots import Snapshot, compute_horizon, count_labelled_rows, select_visible
from include.kernel.errors import Temporary
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import Verdict
from include.monitoring.core.episodes import find_current_episode
from include.retraining.core.policy import Approval, Decision, Facts, GateVerdict, Trigger, decide

if TYPE_CHECKING:
    from include.data.store.snapshot_store import SnapshotStore
    from include.kernel.ledger_file import LocalLedger
    from include.monitoring.report_store import LocalReports
    from include.release.service.driver import ReleaseDriver
    from include.release.targets.base import ServingTarget
    from include.retraining.spec import RetrainingManifest

Answer = dict[str, Any]


class WaitConditions:
    """`open_store`, `open_target` and `open_driver` are called by the condition that needs what they open."""

    def __init__(
        self,
        manifest: RetrainingManifest,
        ledger: LocalLedger,
        reports: LocalReports,
        open_store: Callable[[], SnapshotStore],
        open_target: Callable[[], ServingTarget],
        open_driver: Callable[[], ReleaseDriver],
    ) -> None:
        self._manifest = manifest
        self._ledger = ledger
        self._reports = reports
        self._open_store = open_store
        self._open_target = open_target
        # one for each release, so that not every look reads the newest day's rows again
        self._open_driver = lru_cache(maxsize=8)(lambda generation: open_driver())
        # triggers that are stored name their condition so
        self._conditions: dict[str, Callable[..., Answer | None]] = {
            "drift": self.find_drift,
            "retraining": self.decide_retraining,
            "rollout": self.follow_rollout,
        }

    def ask(self, condition: str, arguments: dict[str, Any]) -> Answer | None:
        return self._conditions[condition](**arguments)

    def find_drift(self) -> Answer | None:
        """The drift episode that is going on and was not announced yet."""
        live = find_live_version(self._ledger)
        reports = [report for report in self._reports.read_reports() if report.version == live]
        episode = find_current_episode(reports)
        if episode is None or any(e.key == episode.key for e in self._ledger.read_entries(kinds.DRIFT_DETECTED)):
            return None
        newest = reports[-1]
        return {
            "key": episode.key,
            "version": episode.version,
            "began": str(episode.began),
            "as_of": str(episode.last),
            "moved": newest.moved,
            "sentence": newest.sentence,
        }

    def decide_retraining(
        self, trigger: Trigger, triggered: str, as_of: str | None, episode: str | None = None
    ) -> Answer | None:
        """The policy's yes or no, with the day it was taken for; None while it says wait.

        `number` is that of the approval a yes would be: whoever enters it first has it (include.retraining.approvals).
        """
        facts, decision = self.weigh_retraining(trigger, triggered, as_of, episode)
        if decision.verdict == "wait":
            return None
        return {
            "verdict": decision.verdict,
            "sentence": decision.sentence,
            "as_of": str(facts.as_of),
            "number": len(facts.approvals) + 1,
        }

    def weigh_retraining(
        self, trigger: Trigger, triggered: str, as_of: str | None, episode: str | None = None
    ) -> tuple[Facts, Decision]:
        """What is known now and what the policy says to it, a wait included."""
        day = date.fromisoformat(as_of) if as_of else None
        facts = self._gather_facts(trigger, date.fromisoformat(triggered), day, episode)
        return facts, decide(facts, self._manifest.retraining, self._manifest.train.min_rows)

    def _gather_facts(self, trigger: Trigger, triggered: date, as_of: date | None, episode: str | None) -> Facts:
        label, history = self._manifest.label, self._open_store().read_history()
        day = as_of or compute_horizon(history) or triggered
        trained = self._find_last_training_day()
        return Facts(
            trigger=trigger,
            triggered=triggered,
            as_of=day,
            last_trained=trained,
            labels=count_labelled_rows(history, day, label),
            new_labels=count_labelled_rows(history, day, label, since=trained),
            releasing=self._is_releasing(),
            episode=episode,
            approvals=tuple(self._read_approvals()),
            gates=tuple(self._read_gate_verdicts()),
            unvalidated=self._explain_unvalidated(history, day),
            performance=self._explain_performance(),
        )

    def _read_approvals(self) -> Iterator[Approval]:
        for entry in self._ledger.read_entries(kinds.RETRAINING_APPROVED):
            trigger, episode = entry.details.get("trigger", "schedule"), entry.details.get("episode")
            yield Approval(date.fromisoformat(entry.subject), trigger, episode)

    def _read_gate_verdicts(self) -> Iterator[GateVerdict]:
        """The verdicts on live trainings, in the order they were given."""
        for entry in self._ledger.read_entries():
            details = entry.details
            if entry.what.startswith(kinds.GATE) and details.get("intent") == "live":
                manual = details.get("run_type") == "manual"
                yield GateVerdict(entry.what.removeprefix(kinds.GATE), date.fromisoformat(details["as_of"]), manual)

    def _explain_unvalidated(self, history: Iterable[Snapshot], as_of: date) -> str | None:
        """The newest delivery, when it broke the contract and nothing valid came since: the world is not known then."""
        days = select_visible(history, as_of)
        if unchecked_days := [snapshot.day for snapshot in days if not snapshot.expectations]:
            return f"{unchecked_days[-1]} was published without a contract being run"
        newest = days[-1].day if days else date.min
        for entry in reversed(list(self._ledger.read_entries(kinds.DATASET_REFUSED))):
            day = _parse_day(entry.subject)
            if day and newest < day <= as_of:
                return f"the delivery of {day} was refused and no later day is validated"
        return None

    def _explain_performance(self) -> str | None:
        """What matured labels say against the live version, in the words of its newest report."""
        live, floor = find_live_version(self._ledger), self._manifest.gate.floor_auc
        report = self._reports.read_newest(live) if live else None
        if report is None:
            return None
        worse = (s for s in report.signals if s.severity == "critical" and s.check in ("performance", "concept_drift"))
        if signal := next(worse, None):
            return (
                f"{signal.measure} of {signal.subject} on matured rows is {signal.value:.3f}, bound "
                f"{signal.threshold:.3f}"
            )
        if report.auc_high is None or report.auc_high >= floor:
            return None
        return f"the AUC on {report.auc_rows} matured rows is at most {report.auc_high:.3f}, the floor is {floor:g}"

    def _find_last_training_day(self) -> date | None:
        live: list[Entry] = [e for e in self._ledger.read_entries(kinds.MODEL_TRAINED) if e.details["intent"] == "live"]
        return max((date.fromisoformat(entry.details["as_of"]) for entry in live), default=None)

    def _is_releasing(self) -> bool:
        """A deploy that neither ended well nor was turned down."""
        target = self._open_target()
        desired = target.read_desired_state()
        if desired is None or desired.kind == "rollback":
            return False
        evidence = target.read_evidence(desired.generation)
        return not evidence.is_turned_down and evidence.soaked is Verdict.PENDING

    def follow_rollout(self, generation: int) -> Answer | None:
        """The next step of a release that needs a worker; until then each asking is one look at the step that waits."""
        try:
            step = self._open_driver(generation).follow(generation)
        except Temporary as error:
            return {"step": None, "sentence": str(error)}  # the worker meets it again, and the task is retried
        return {"step": step.value, "sentence": f"the next step is {step.value}"} if step else None


def _parse_day(text: str) -> date | None:
    """None for what an earlier version entered of a form that was filled in wrongly."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def find_live_version(ledger: LocalLedger) -> str | None:
    """The version that went live last; after a rollback an older one, whose reports count again."""
    return next((entry.subject for entry in reversed(list(ledger.read_entries(kinds.RELEASE_LIVE)))), None)
