"""What the local target knows, in files.

<serving>/wanted.json              the one stored desire, changed by compare-and-set under a lock
<serving>/route/routes.yaml        where traffic goes; Envoy watches it, and it is the only record of the route
<serving>/slots/<colour>.json      what a slot loads when it starts
<serving>/verdicts/<generation>/   accepted.json, shadowed.json, canary-1.json, experiment.json and so on
<serving>/progress/<generation>/   how far a part that takes many looks has come
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from include.kernel.errors import Conflict, RecordDamaged
from include.kernel.files import locked, sweep_drafts, write_atomic
from include.kernel.words.verdicts import SOAKED
from include.release.core.release_record import evidence_of, is_same_wish, wanted_of
from include.release.core.rollout import BLUE_GREEN, Colour, Evidence, Plan, Release, Route, Verdict, Wanted
from include.release.targets.artifact_disk import ArtifactDisk
from include.release.targets.base import DesiredStateStore, EvidenceStore
from include.release.targets.local import envoy_routes
from include.serving.words.slot_files import routes_path, slot_path

LOCK_PATIENCE_S = 20.0  # nobody holds it longer than a file takes to write


class LocalRecords(DesiredStateStore, EvidenceStore, ArtifactDisk):
    def __init__(self, root: Path) -> None:
        self._root = root

    # --- the wish -------------------------------------------------------------------------------------------------

    def wanted(self) -> Wanted | None:
        path = self._root / "wanted.json"
        if not path.exists():
            return None
        with _readable(path):
            return wanted_of(json.loads(path.read_text()))

    def want(
        self,
        release: Release,
        by: str,
        why: str,
        kind: Literal["deploy", "rollback"],
        expected: int | None = None,
        blessing: str | None = None,
        plan: Plan = BLUE_GREEN,
    ) -> Wanted:
        with self._lock():
            known = self.wanted()
            if known and is_same_wish(known, self.evidence(known.generation), release, kind, by):
                return known
            generation = self._newest_generation(known)
            if expected is not None and expected != generation:
                raise Conflict(f"Generation {expected} was expected but {generation} is wanted; look again and retry.")
            sweep_drafts(self._root)
            wish = Wanted(release, generation + 1, by, why, kind, self._kept(blessing), plan)
            write_atomic(self._root / "wanted.json", json.dumps(asdict(wish), indent=1))
            return wish

    def _newest_generation(self, known: Wanted | None) -> int:
        """Also of what a lost record had wanted: a generation that came again would find the verdicts of the first."""
        judged = [int(place.name) for place in (self._root / "verdicts").glob("[0-9]*")]
        return known.generation if known else max([self._route().generation, *judged])

    def quiet_s(self, generation: int) -> float:
        """By the clock of the disk."""
        own = [place for part in ("verdicts", "progress") for place in (self._root / part / str(generation)).glob("*")]
        files = [self._root / "wanted.json", routes_path(self._root), *own]
        return time.time() - max((path.stat().st_mtime for path in files if path.exists()), default=0.0)

    # --- verdicts -------------------------------------------------------------------------------------------------

    def evidence(self, generation: int, trial: int = 0) -> Evidence:
        own, tried = self._found(generation), self._found(trial) if trial else {SOAKED: Verdict.PASSED}
        return evidence_of(own, tried)

    def _found(self, generation: int) -> dict[str, Verdict]:
        return {part: Verdict(content["verdict"]) for part, content in self.verdicts(generation).items()}

    def verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        place = self._root / "verdicts" / str(generation)
        return {path.stem: json.loads(path.read_text()) for path in sorted(place.glob("*.json"))}

    def record(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        path = self._root / "verdicts" / str(generation) / f"{part}.json"
        content = {"verdict": verdict.value, "why": why, **({"report": report} if report else {})}
        write_atomic(path, json.dumps(content, indent=1))

    def progress(self, generation: int, part: str) -> dict[str, Any]:
        path = self._root / "progress" / str(generation) / f"{part}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def note(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        write_atomic(self._root / "progress" / str(generation) / f"{part}.json", json.dumps(progress))

    # --- the route and the slots ----------------------------------------------------------------------------------

    def _route(self) -> Route:
        path = routes_path(self._root)
        with _readable(path):
            return envoy_routes.parse(path.read_text()) if path.exists() else Route()

    def _write_route(self, route: Route) -> None:
        if route != self._route():
            write_atomic(routes_path(self._root), envoy_routes.render(route))

    def _staged(self, colour: Colour) -> Release | None:
        path = self._slot_file(colour)
        if not path.exists():
            return None
        with _readable(path):
            content = json.loads(path.read_text())
            return Release(content["version"], content["digest"])

    def _slot_file(self, colour: Colour) -> Path:
        return slot_path(self._root, colour)

    # --- the lock -------------------------------------------------------------------------------------------------

    def _lock(self) -> Any:
        return locked(self._root / ".lock", LOCK_PATIENCE_S)

    @contextmanager
    def _fenced(self, wanted: Wanted | None) -> Iterator[Route]:
        """Holds the lock and gives the current route, unless a newer wish than `wanted` has been stored meanwhile."""
        with self._lock():
            if wanted:
                self._must_be_wanted(wanted)
            yield self._route()

    def _must_be_wanted(self, wanted: Wanted) -> None:
        now = self.wanted()
        if now is None or now.generation != wanted.generation:
            raise Conflict(f"Generation {wanted.generation} is no longer wanted; nothing was changed.")

    @staticmethod
    def _must_not_be_live(colour: Colour, route: Route) -> None:
        if route.live == colour:
            raise Conflict(f"Slot {colour} carries live traffic; look again before you touch it.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"{path} cannot be read ({type(error).__name__}), so nothing is moved; `make reconcile` writes it anew."
        ) from error
