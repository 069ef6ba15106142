"""What the local target knows, in files.

<serving>/wanted.json              the one stored desire, changed by compare-and-set under a lock
<serving>/route/routes.yaml        where traffic goes; Envoy watches it, and it is the only record of the route
<serving>/slots/<colour>.json      what a slot loads when it starts
<serving>/verdicts/<generation>/   accepted.json, shadowed.json, canary-1.json, experiment.json and so on
<serving>/progress/<generation>/   how far a part that takes many looks has come
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from include.kernel.errors import Conflict, RecordDamaged
from include.kernel.files import hold_lock, sweep_drafts, write_atomic
from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import SOAKED, Verdict
from include.release.core.release_record import build_evidence, is_same_request, parse_desired_state
from include.release.core.rollout import BLUE_GREEN, DesiredState, Evidence, Release, ReleasePlan, Route
from include.release.targets.artifact_disk import ArtifactDisk
from include.release.targets.base import DesiredStateStore, EvidenceStore
from include.release.targets.local import envoy_routes
from include.serving.words.slot_files import locate_routes_file, locate_slot_file

LOCK_TIMEOUT_S = 20.0  # nobody holds it longer than a file takes to write


class LocalRecords(DesiredStateStore, EvidenceStore, ArtifactDisk):
    def __init__(self, root: Path) -> None:
        self._root = root

    # --- the release request ------------------------------------------------------------------------------------

    def read_desired_state(self) -> DesiredState | None:
        path = self._root / "wanted.json"
        if not path.exists():
            return None
        with _translate_damage(path):
            return parse_desired_state(json.loads(path.read_text()))

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
        with self._lock():
            current = self.read_desired_state()
            if current and is_same_request(current, self.read_evidence(current.generation), release, kind, by):
                return current
            generation = self._find_newest_generation(current)
            if expected is not None and expected != generation:
                raise Conflict(f"Generation {expected} was expected but {generation} is wanted; look again and retry.")
            sweep_drafts(self._root)
            desired = DesiredState(release, generation + 1, by, why, kind, self._keep_envelope(blessing), plan)
            write_atomic(self._root / "wanted.json", json.dumps(asdict(desired), indent=1))
            return desired

    def _find_newest_generation(self, current: DesiredState | None) -> int:
        """Also of what a lost record had wanted: a generation that came again would find the verdicts of the first."""
        judged_generations = [int(directory.name) for directory in (self._root / "verdicts").glob("[0-9]*")]
        return current.generation if current else max([self._read_route().generation, *judged_generations])

    def measure_idle_s(self, generation: int) -> float:
        """By the clock of the disk."""
        generation_files = [
            file for part in ("verdicts", "progress") for file in (self._root / part / str(generation)).glob("*")
        ]
        files = [self._root / "wanted.json", locate_routes_file(self._root), *generation_files]
        return time.time() - max((path.stat().st_mtime for path in files if path.exists()), default=0.0)

    # --- verdicts -------------------------------------------------------------------------------------------------

    def read_evidence(self, generation: int, trial: int = 0) -> Evidence:
        own_verdicts, trial_verdicts = (
            self._read_verdict_values(generation),
            self._read_verdict_values(trial) if trial else {SOAKED: Verdict.PASSED},
        )
        return build_evidence(own_verdicts, trial_verdicts)

    def _read_verdict_values(self, generation: int) -> dict[str, Verdict]:
        return {part: Verdict(content["verdict"]) for part, content in self.read_verdicts(generation).items()}

    def read_verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        directory = self._root / "verdicts" / str(generation)
        return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}

    def record_verdict(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        path = self._root / "verdicts" / str(generation) / f"{part}.json"
        content = {"verdict": verdict.value, "why": why, **({"report": report} if report else {})}
        write_atomic(path, json.dumps(content, indent=1))

    def read_progress(self, generation: int, part: str) -> dict[str, Any]:
        path = self._root / "progress" / str(generation) / f"{part}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def record_progress(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        write_atomic(self._root / "progress" / str(generation) / f"{part}.json", json.dumps(progress))

    # --- the route and the slots ----------------------------------------------------------------------------------

    def _read_route(self) -> Route:
        path = locate_routes_file(self._root)
        with _translate_damage(path):
            return envoy_routes.parse(path.read_text()) if path.exists() else Route()

    def _write_route(self, route: Route) -> None:
        if route != self._read_route():
            write_atomic(locate_routes_file(self._root), envoy_routes.render(route))

    def _read_staged(self, colour: Colour) -> Release | None:
        path = self._locate_slot_file(colour)
        if not path.exists():
            return None
        with _translate_damage(path):
            content = json.loads(path.read_text())
            return Release(content["version"], content["digest"])

    def _locate_slot_file(self, colour: Colour) -> Path:
        return locate_slot_file(self._root, colour)

    # --- the lock -------------------------------------------------------------------------------------------------

    def _lock(self) -> Any:
        return hold_lock(self._root / ".lock", LOCK_TIMEOUT_S)

    @contextmanager
    def _hold_fence(self, desired: DesiredState | None) -> Iterator[Route]:
        """Holds the lock and gives the current route, unless a newer request than `wanted` was stored meanwhile."""
        with self._lock():
            if desired:
                self._must_be_desired(desired)
            yield self._read_route()

    def _must_be_desired(self, desired: DesiredState) -> None:
        current = self.read_desired_state()
        if current is None or current.generation != desired.generation:
            raise Conflict(f"Generation {desired.generation} is no longer wanted; nothing was changed.")

    @staticmethod
    def _must_not_be_live(colour: Colour, route: Route) -> None:
        if route.live == colour:
            raise Conflict(f"Slot {colour} carries live traffic; look again before you touch it.")


@contextmanager
def _translate_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"{path} cannot be read ({type(error).__name__}), so nothing is moved; `make reconcile` writes it anew."
        ) from error
