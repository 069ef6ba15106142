"""kill -9 of a release at every moment there is: whoever runs it again brings it to the same end, and nobody notices.

For each story, in each strategy, an undisturbed run tells its effects outside of its own process (release_points).
Then it is told again and again: each time the task is killed before another of these effects and retried, as Airflow
retries it, with nothing in its memory. Afterwards exactly one release is live and ready, served by the proxy, champion
in the registry and last in the ledger; the wish was stored once; each entry stands there once; no draft is left over.

Of the effects of many looks (an await, a shadow, a canary, a soak) only the first counts: how many there are depends on
the clock, and those that follow find the same files.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from include.kernel.files import DRAFT_MAX_AGE_S
from include.kernel.wiring import open_ledger
from tests.ground import wait_for
from tests.proofs.outcomes import Named, Outcomes, must
from tests.proofs.release_dag import TASKS, Run
from tests.proofs.release_points import LOCK, Point, noted
from tests.proofs.release_world import DEMANDING, GLOOMY, GOOD, OTHER, STRATEGIES, World, begun, slot

ROUND = (GOOD, OTHER, GLOOMY)  # with three versions in turn, the one that is wanted is never in a slot already
LOOKED_AT = re.compile(r"(awaited|recovering|shadowed|canary-\d+|soaking)\.json$")
GENTLE = 60.0  # requests a second meanwhile


@dataclass(frozen=True)
class Story:
    """What is released, under which manifest, and how that must end; `spoil` is what happens to it after its switch."""

    name: str
    manifest: str
    outcome: str = "done"
    version: str = ""  # empty: the next good one
    dag: str = "deploy"
    spoil: bool = False


@contextmanager
def spoiled(world: World, run: Run) -> Iterator[None]:
    """Ends the slot of the release as soon as it is live, and again whenever it is back: its soak cannot pass."""

    def spoil() -> None:
        generation = wait_for(lambda: (run.result("want") or {}).get("generation"))
        wait_for(lambda: world.seen().route.trial == generation, 600)
        world.serving.stop(slot(world.seen().route.live or "blue"))

    spoiling = begun(spoil)
    yield
    spoiling.result()
    world.serving.start_all()


class Killed:
    """One story, told once for every point."""

    def __init__(self, world: World, story: Story) -> None:
        self.world, self.story = world, story

    def told(self, fatal: dict[str, Point]) -> Run:
        """A whole run that is killed at these points, and what must hold after it."""
        world, before, first = self.world, self.world.live, self._generation()
        world.serving.start_all()
        run = world.run(self.story.dag, self.story.manifest, version=self._version(before))  # type: ignore[arg-type]
        with spoiled(world, run) if self.story.spoil else nullcontext():
            world.carry_out(run, fatal)
        must(run.outcome == self.story.outcome, f"ended as {run.outcome}: {run.output()}")
        expected = run.params["version"] if self.story.outcome == "done" else before
        must(world.live == expected, f"{world.live} is live, not {expected}")
        must(self._generation() == first + 1, f"{self._generation() - first} wishes were stored")
        said = Counter(entry.what for entry in open_ledger().read_entries() if entry.who == f"{run.dag} {run.name}")
        must(set(said.values()) == {1}, f"the ledger says {dict(said)}")
        world.steady()
        return run

    def _version(self, live: str) -> str:
        if self.story.version:
            return self.story.version
        if self.story.dag == "rollback":
            return self.world.standby
        version = ROUND[(ROUND.index(live) + 1) % len(ROUND)]
        self._forget_artifact(version)
        return version

    def _forget_artifact(self, version: str) -> None:
        """So that staging has to fetch it anew, and can be killed at that."""
        seen = self.world.seen()
        held = {slot.release.digest for slot in (seen.blue, seen.green) if slot.release}
        digest = self.world.digests[version]
        if digest not in held:
            shutil.rmtree(self.world.serving.root / "artifacts" / digest, ignore_errors=True)

    def _generation(self) -> int:
        wanted = self.world.serving.target.read_desired_state()
        return wanted.generation if wanted else 0

    def points(self) -> list[tuple[str, Point]]:
        """Task and point, in the order of an undisturbed run."""
        found = []
        run = self.told({})
        for task in TASKS:
            done = [effect.name for effect in noted(run.effects(task))]
            names = [name for name in done if name != LOCK and not name.startswith("mkdir")]
            numbers = Counter[str]()
            for name in names:
                numbers[name] += 1
                if numbers[name] <= (1 if LOOKED_AT.search(name) else 2):
                    found.append((task, Point(name, numbers[name])))
        return found


STORIES = [
    *(Story(f"a good one, {strategy}", strategy) for strategy in STRATEGIES),
    Story("turned down by its smoke requests", "blue_green, strict", "rejected", DEMANDING),
    Story("turned down by its canary", "canary, strict", "rejected", GLOOMY),
    *(Story(f"reverted by its soak, {name}", f"{name}, spoiled", "reverted", spoil=True) for name in STRATEGIES),
    Story("a rollback", "blue_green", dag="rollback"),
]


def at_every_point(world: World, outcomes: Outcomes, story: Story, most: int) -> None:
    killed = Killed(world, story)
    world.deploy(OTHER if world.live == GOOD else GOOD)  # there is a standby, and what is live is good
    with world.load(rate=GENTLE, connections=8) as found:
        points = killed.points()
        chosen = points[:: max(1, -(-len(points) // most))]
        before = world.kills
        for task, point in chosen:
            killed.told({task: point})
    reached = world.kills - before
    figures = outcomes.figures.setdefault("killed", {})
    figures[story.name] = f"{reached} of {len(chosen)} points, {found[0].failed} of {found[0].result.answered} requests"
    outcomes.console.print(f"     {story.name}: {figures[story.name]}", markup=False)
    outcomes.figures["kills"] = outcomes.figures.get("kills", 0) + reached
    must(reached >= len(chosen) * 0.8, f"only {reached} of {len(chosen)} points were reached")
    must(found[0].failed == 0, f"lost {found[0].problem} of {found[0].result.answered}")


def nothing_is_left(world: World, outcomes: Outcomes) -> None:
    """I7: what killed writers left is removed by the first wish that finds it a minute old."""
    outcomes.figures["drafts_left_by_kills"] = len(world.drafts())
    wait_for(lambda: all(time.time() - draft.stat().st_mtime > DRAFT_MAX_AGE_S for draft in world.drafts()), 300)
    world.deploy(OTHER if world.live == GOOD else GOOD)
    must(world.drafts() == [], f"left over: {world.drafts()}")


def of_killed(world: World, outcomes: Outcomes, quick: bool) -> list[Named]:
    most = 3 if quick else 8
    left: Named = ("killed: nothing is left over", partial(nothing_is_left, world, outcomes))
    stories: list[Named] = [
        (f"killed at every point: {story.name}", partial(at_every_point, world, outcomes, story, most))
        for story in STORIES
    ]
    return [*stories, left]
