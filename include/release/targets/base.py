"""What a serving target is: small abstract classes that every target subclasses, and what drives a release asks for.

Every method is idempotent. Whatever concerns traffic carries the desired release it serves, and raises `Conflict` when
a newer one has been stored meanwhile; nothing is changed then. mypy proves that a target has all of it, and the
contract suite that it does what is said here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import Verdict
from include.release.core.reconcile import SlotReport
from include.release.core.rollout import BLUE_GREEN, DesiredState, Evidence, ObservedStatus, Release, ReleasePlan, Route
from include.release.targets.slot_counters import SlotCounters
from include.serving.words.recent import RecentAnswers, RecentQuery

if TYPE_CHECKING:
    import httpx


class DesiredStateStore(ABC):
    """The one stored desire, changed by compare-and-set."""

    @abstractmethod
    def read_desired_state(self) -> DesiredState | None:
        """Raises `RecordDamaged` for what no release of ours wrote."""

    @abstractmethod
    def request_release(
        self,
        release: Release,
        by: str,
        why: str,
        kind: Literal["deploy", "rollback"],
        expected: int | None = None,
        blessing: str | None = None,
        plan: ReleasePlan = BLUE_GREEN,
    ) -> DesiredState:
        """Stores a new release request with the next generation. Said again before it has ended, it is the same one.

        `blessing` is the signed envelope, kept for the slots. With `expected`, raises `Conflict` unless the stored
        generation is that one.
        """

    @abstractmethod
    def measure_idle_s(self, generation: int) -> float:
        """Seconds since a run last wrote anything for this generation, by the clocks of those who wrote."""


class EvidenceStore(ABC):
    """Verdicts and progress, by generation."""

    @abstractmethod
    def read_evidence(self, generation: int, trial: int = 0) -> Evidence:
        """The verdicts of a generation, and of the one on trial; a `trial` of 0 needs no verdict."""

    @abstractmethod
    def read_verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        """Part (accepted, shadowed, canary-1, approved, soaked, recovered) -> {verdict, why}, and its report if any."""

    @abstractmethod
    def record_verdict(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        """`report` is what the verdict was taken from, where that is more than a sentence."""

    @abstractmethod
    def read_progress(self, generation: int, part: str) -> dict[str, Any]:
        """What the looks at a part have noted so far; empty before the first."""

    @abstractmethod
    def record_progress(self, generation: int, part: str, progress: dict[str, Any]) -> None: ...


class ArtifactStore(ABC):
    """Verified copies beside the target, so that a slot comes back with the registry down."""

    @abstractmethod
    def find_artifact(self, digest: str) -> Path | None: ...

    @abstractmethod
    def read_golden_rows(self, digest: str) -> list[dict[str, Any]]:
        """The golden rows (row, probability) of a staged artifact."""


class TrafficRoute(ABC):
    """Where requests go. Each change waits until it has arrived; raises `ServiceUnavailable` when it does not."""

    @abstractmethod
    def isolate(self, desired: DesiredState) -> None:
        """Takes the idle slot out of the standby role: what is being judged takes over for nobody."""

    @abstractmethod
    def split(self, desired: DesiredState, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        """Gives the idle slot a share of the requests (per cent), of the callers if `sticky`, or copies of them all."""

    def withdraw(self, desired: DesiredState) -> None:
        """Ends a share or a mirror."""
        self.split(desired)

    @abstractmethod
    def switch(self, colour: Colour, desired: DesiredState) -> None:
        """Sends all traffic to `colour`.

        A deployment is on trial, with what served before as its standby; a rollback is neither.
        """

    @abstractmethod
    def revert(self, colour: Colour, desired: DesiredState) -> None:
        """Sends all traffic back to the standby; what failed its trial stands by for nobody."""


class Slots(ABC):
    """The two places that a release is put into. Raises `Conflict` for the one that carries live traffic."""

    @abstractmethod
    def install_release(self, colour: Colour, desired: DesiredState, artifact: Path) -> None:
        """Takes the slot out of the standby role, then puts the release into it and starts it anew."""

    @abstractmethod
    def nudge(self, colour: Colour) -> None:
        """Starts a slot that does not run, or runs something else than was put into it."""

    @abstractmethod
    def discard(self, colour: Colour, desired: DesiredState) -> None:
        """Empties the slot of a release that was turned down."""

    @abstractmethod
    def explain_not_ready(self, colour: Colour) -> str:
        """The slot's own sentence about why it is not ready."""

    @abstractmethod
    def explain_refusal(self, colour: Colour, release: Release) -> str | None:
        """Why the slot will never serve this release, once it has tried; None while it may still become ready."""


class SlotAnswers(ABC):
    """What slots answer, and have answered."""

    @abstractmethod
    def fetch_predictions(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        """Predictions for `rows`, from one slot, or as a client gets them when `colour` is None.

        Of a slot nobody but us asks, so its answer is marked as a copy's and stands in no prediction log.
        """

    @abstractmethod
    def count_traffic(self, colour: Colour) -> SlotCounters | None:
        """What a slot has answered so far with the version it was given; None when it cannot be asked."""

    @abstractmethod
    def fetch_recent_answers(self, colour: Colour, question: RecentQuery) -> RecentAnswers | None:
        """What a slot answered last, as include.serving.log.recent_answers tells it; None when it cannot be asked.

        Raises `AccessRefused` when the slot knows another serving token, or none.
        """


class ServingTarget(DesiredStateStore, EvidenceStore, ArtifactStore, TrafficRoute, Slots, SlotAnswers):
    """A place that serves releases blue-green."""

    @abstractmethod
    def observe(self) -> ObservedStatus:
        """The route, and both slots. Raises `RecordDamaged` where that cannot be read."""


class RecordRepair(ABC):
    """What reconciliation may do and no step of a release: look where nothing can be read, and mend the records.

    Whatever is written is written only if what was `seen` is still so; raises `Conflict` otherwise.
    """

    @abstractmethod
    def read_records(self) -> tuple[ObservedStatus, DesiredState | None, Evidence, frozenset[str]]:
        """What can be read, and the names of the records that cannot."""

    @abstractmethod
    def read_slot_report(self, colour: Colour) -> SlotReport | None:
        """What a slot says of itself; None when it does not answer."""

    @abstractmethod
    def read_effective_route(self) -> tuple[Route | None, bool | None]:
        """The route by which requests really go, and whether it is the recorded one; None: nobody can say."""

    @abstractmethod
    def read_envelope(self, colour: Colour) -> str | None:
        """The signed envelope that allows what a slot was given; None where it lies no more."""

    @abstractmethod
    def restore_desired_state(self, observed: ObservedStatus) -> None:
        """Wants what serves, with a generation that never was."""

    @abstractmethod
    def restore_route(self, route: Route) -> None: ...

    @abstractmethod
    def apply_route(self) -> None:
        """Makes requests go where the record says."""

    @abstractmethod
    def restore_slot(
        self, colour: Colour, release: Release | None, envelope: str | None, observed: ObservedStatus
    ) -> None:
        """Puts `release` into the slot, as it was allowed; without one the slot is emptied."""

    @abstractmethod
    def reload(self, colour: Colour) -> None:
        """Makes the slot hold what it was given, beside the model that serves where it can."""

    @abstractmethod
    def start_slot(self, colour: Colour) -> None: ...

    @abstractmethod
    def start_proxy(self) -> None: ...


class RepairableTarget(ServingTarget, RecordRepair):
    """A target as it is looked after, with the rights to mend its records."""
