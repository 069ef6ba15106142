"""Cycles of releases under a steady load: nobody's request fails, and who asks after a switch is answered by the new.

One cycle, with some version live: another is **deployed**; a third is **aborted** by a person's rollback, at a moment
that goes round from cycle to cycle; one more is aborted a **second** time, by the machine, since its smoke requests or
its canary fail; a bad one passes, goes live, and is taken back by `make rollback`; and a good one **rolls forward**.

Two clocks. A switch begins when the route file is about to be renamed into its place, as seen by an audit hook in the
process that does it, and ends with the last answer of the slot that was live before. A rollback begins when the command
is called, before its processes exist, and ends with the last answer of the bad version. Both end at the client.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from include.embedded.stack import strays
from tests.ground import wait_for
from tests.proofs.outcomes import Named, Outcomes, must
from tests.proofs.release_dag import Run
from tests.proofs.release_world import (
    DEMANDING,
    GLOOMY,
    GOOD,
    OTHER,
    STRATEGIES,
    Answers,
    World,
    begun,
    last_of_the_old,
    slot,
    switches,
)

SWITCH_MS, ROLLBACK_S, REQUESTS = 50.0, 1.0, 100_000
MOMENTS = {"blue_green": ("staged", "verified", "switched"), "canary": ("mirrored", "split", "switched", "staged")}
GROWTH_MIB, GROWTH_FDS = 64, 16


@dataclass
class Cycles:
    """What a number of cycles did, and what their clients saw."""

    world: World
    count: int
    rate: float
    done: list[Run] = field(default_factory=list)
    aborted_at: Counter[str] = field(default_factory=Counter)
    rollbacks: list[tuple[float, float]] = field(default_factory=list)  # from the command to the end of its cycle

    def run(self, outcomes: Outcomes) -> Answers:
        before = self._held()
        with self.world.load(rate=self.rate) as found:
            for number, strategy in zip(range(self.count), itertools.cycle(STRATEGIES)):
                self._cycle(number, strategy)
                self.world.steady()
                outcomes.console.print(f"     cycle {number + 1} of {self.count}, {strategy}", markup=False)
        self._leaks(before, self._held(), outcomes)
        return found[0]

    def _cycle(self, number: int, strategy: str) -> None:
        world, before = self.world, self.world.live
        new = OTHER if before == GOOD else GOOD
        world.deploy(new, strategy)
        self._aborted(before, strategy, MOMENTS[strategy][number // 2 % len(MOMENTS[strategy])])
        world.deploy(GLOOMY if strategy == "canary" else DEMANDING, f"{strategy}, strict", "rejected")
        must(world.live == new, f"after two aborts {world.live} is live, not {new}")
        world.deploy(GLOOMY, strategy)
        began = world.command()[0]
        must(world.live == new, f"after the rollback {world.live} is live, not {new}")
        world.deploy(before, strategy)
        self.rollbacks.append((began, time.monotonic()))  # the next cycle tries the bad version again

    def _aborted(self, version: str, strategy: str, moment: str) -> None:
        """A deployment that a person's rollback to what is live ends at this moment."""
        world, live = self.world, self.world.live
        run = world.run("deploy", f"{strategy}, long", version=version)
        deployment = begun(partial(world.carry_out, run))
        generation = wait_for(lambda: (run.result("want") or {}).get("generation"))
        wait_for(lambda: has_come(world, version, generation, moment))
        world.roll_back(live)
        deployment.result()
        must(run.outcome == "superseded", f"the aborted deployment ended as {run.outcome}")
        must(world.live == live, f"after the abort {world.live} is live, not {live}")
        self.aborted_at[moment] += 1

    def _held(self) -> dict[str, Any]:
        """What a hundred releases must not add to (row 38)."""
        found = strays.find(self.world.serving.stack.settings.home)
        manager = [process for process in found if "supervisord" in " ".join(process.cmdline())]
        return {
            "processes": len(found),
            "envoy_mib": self.world.rss_mib("envoy"),
            "fds": sum(process.num_fds() for process in manager),
            "artifacts": len(list((self.world.serving.root / "artifacts").iterdir())),
        }

    def _leaks(self, before: dict[str, Any], after: dict[str, Any], outcomes: Outcomes) -> None:
        outcomes.figures["envoy_grew_mib"] = round(after["envoy_mib"] - before["envoy_mib"], 1)
        must(after["processes"] == before["processes"], f"{before['processes']} processes became {after['processes']}")
        must(after["envoy_mib"] - before["envoy_mib"] < GROWTH_MIB, f"Envoy grew from {before} to {after}")
        must(after["fds"] - before["fds"] < GROWTH_FDS, f"the process manager's descriptors grew: {before}, {after}")


def has_come(world: World, version: str, generation: int, moment: str) -> bool:
    seen = world.seen()
    if moment == "staged":
        release = seen.get_slot(seen.idle).release
        return release is not None and release.version == version
    if moment == "verified":
        return "accepted" in world.serving.target.read_verdicts(generation)
    if moment == "mirrored":
        return seen.route.mirror
    return seen.route.trial == generation if moment == "switched" else seen.route.share > 0


def recorded(world: World) -> Counter[str]:
    """How often each request id stands in the prediction log."""
    store = world.serving.stack.settings.store_dir
    files = [str(path) for path in (store / "predictions").rglob("*.parquet")]
    ids = ds.dataset(files).to_table(columns=["request_id"])["request_id"].to_pylist() if files else []
    return Counter(ids)


def once_each(world: World, answers: Answers) -> int:
    """I5: every answered request has one record; gives how many were looked up. Ends both slots, so that they write."""
    for colour in ("blue", "green"):
        world.serving.stop(slot(colour))
    try:
        found = wait_for(lambda: _complete(recorded(world), answers.ids))
    finally:
        world.serving.start_all()
    twice = [each for each in answers.ids if found[each] != 1]
    must(not twice, f"{len(twice)} of {len(answers.ids)} answered requests have another number of records than one")
    return len(answers.ids)


def _complete(found: Counter[str], ids: list[str]) -> Counter[str] | None:
    return found if all(each in found for each in ids) else None


def cycles(world: World, outcomes: Outcomes, count: int, rate: float, requests: int) -> None:
    made = Cycles(world, count, rate)
    answers = made.run(outcomes)
    gaps = [seconds * 1000 for seconds in last_of_the_old(answers, switches(world.effects(), world.commands))]
    backs = [answers.last(answers.version == GLOOMY, began, ended) for began, ended in made.rollbacks]
    outcomes.figures |= {
        "cycles": count,
        "releases": len(world.runs) + len(world.commands),
        "requests": answers.result.answered,
        "failed_requests": answers.failed,
        "latency_p50_ms": round(answers.result.ms(50), 2),
        "latency_p99_ms": round(answers.result.ms(99), 2),
        "latency_max_ms": round(answers.result.ms(100), 1),
        "switches": len(gaps),
        "switch_median_ms": round(float(np.median(gaps)), 1),
        "switch_max_ms": round(max(gaps), 1),
        "rollback_median_s": round(float(np.median(backs)), 2),
        "rollback_max_s": round(max(backs), 2),
        "aborted_at": dict(made.aborted_at),
        "logged_once": once_each(world, answers),
    }
    must(answers.failed == 0, f"lost {answers.problem} of {answers.result.answered}")
    must(answers.result.answered >= requests, f"{answers.result.answered} requests were answered, not {requests}")
    must(max(gaps) <= SWITCH_MS, f"switches took up to {max(gaps):.0f} ms: {[round(gap) for gap in gaps]}")
    must(min(backs) > 0, f"the bad version never answered: {backs}")
    must(max(backs) <= ROLLBACK_S, f"rollbacks took up to {max(backs):.2f} s: {[round(back, 2) for back in backs]}")


def of_cycles(world: World, outcomes: Outcomes, quick: bool) -> list[Named]:
    count, rate, requests = (2, 100.0, 1_000) if quick else (20, 300.0, REQUESTS)
    name = f"{count} cycles of deploy, abort, second abort, rollback and rollforward: 0 failed"
    return [(name, partial(cycles, world, outcomes, count, rate, requests))]
