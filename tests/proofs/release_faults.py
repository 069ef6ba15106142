"""What fails around a release while it is under way: slots, the proxy, MLflow, a disk, another run, a clock that stops.

Each case is a row of the fault matrix. A load runs meanwhile, and the case says what its clients may notice: nothing,
where a warm standby or the other slot of a canary is there to take over; else only those whose request was in flight.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import Any

import numpy as np

from include.embedded.configuration.settings import ProgramName
from include.kernel.words.colours import Colour
from tests.ground import wait_for
from tests.proofs.data_disks import may_mount, small_disk
from tests.proofs.outcomes import Named, Outcomes, must
from tests.proofs.release_cycles import has_come
from tests.proofs.release_dag import Run
from tests.proofs.release_points import LOCK, Point, noted
from tests.proofs.release_world import (
    DEMANDING,
    GLOOMY,
    GOOD,
    OTHER,
    UNLOADABLE,
    Answers,
    World,
    begun,
    slot,
    switches,
)

GENTLE = 100.0  # requests a second
AGAIN_S = 2.0  # until somebody answers after a kill
REVERTED_S = 5.0
IN_FLIGHT = 16  # connections of the load: so many requests may be under way at once


@dataclass
class Faults:
    world: World
    outcomes: Outcomes

    # --- what the cases stand on ----------------------------------------------------------------------------------

    def another(self) -> str:
        """A good version that is not live."""
        return OTHER if self.world.live == GOOD else GOOD

    def with_standby(self) -> None:
        """A good version is live, and another good one stands by; a guard that is off is so from the switch on."""
        self.world.serving.start_all()
        without, self.world.without = self.world.without, ""
        while {self.world.live, self.world.standby} != {GOOD, OTHER}:
            self.world.deploy(self.another())
        self.world.without = without
        self.world.deploy(self.another())

    def begun(self, manifest: str, version: str, moment: str = "") -> tuple[Run, Any, int]:
        """A deployment that goes on by itself, at this moment; the run, its future and its generation."""
        run = self.world.run("deploy", manifest, version=version)
        future = begun(partial(self.world.carry_out, run))
        generation = wait_for(lambda: (run.result("want") or {}).get("generation"))
        if moment:
            wait_for(lambda: has_come(self.world, version, generation, moment), 300)
        return run, future, generation

    def kill(self, program: ProgramName, how: signal.Signals = signal.SIGKILL) -> float:
        """When (time.monotonic) the very process got the signal."""
        pid, at = self.world.pid(program), time.monotonic()
        os.kill(pid, how)
        return at

    def killed(self, program: ProgramName) -> float:
        """Kills it, and waits for its successor; the moment of the kill."""
        before = self.world.pid(program)
        at = self.kill(program)
        wait_for(lambda: self.world.pid(program) not in (0, before))
        return at

    def away(self, program: ProgramName) -> None:
        """Stopped, which MLflow takes long for, so that the process manager is not waited for."""
        self.world.serving.stack.supervisor.rpc.stopProcess(program, False)
        wait_for(lambda: self.world.pid(program) == 0)

    @contextmanager
    def stopped(self, run: Run, point: Point) -> Iterator[Future[Any]]:
        """The rollout of a run is held up at this point while the block runs, and goes on then; its exit code."""
        held = begun(partial(self.world.task, run, "rollout", point))
        pid = wait_for(lambda: run.stopped())
        try:
            yield held
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def load(self) -> Iterator[list[Answers]]:
        with self.world.load(rate=GENTLE, connections=IN_FLIGHT) as found:
            yield found

    def nobody_noticed(self, answers: Answers) -> None:
        must(answers.failed == 0, f"lost {answers.problem} of {answers.result.answered}")

    def figure(self, name: str, value: float) -> None:
        self.outcomes.figures[name] = round(value, 2)

    # --- slots ----------------------------------------------------------------------------------------------------

    def green_in_canary(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Row 11, 13, 14: a candidate that dies, or stops answering, on live requests is turned down."""
        self.with_standby()
        before = self.world.live
        with self.load() as found:
            run, future, _ = self.begun("canary, long", GLOOMY, "split")
            candidate = slot(self.world.seen().idle)
            self.kill(candidate, how)
            future.result()
        must(run.outcome == "rejected" and self.world.live == before, f"{run.outcome}, {self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    def idle_slot(self) -> None:
        self.with_standby()
        with self.load() as found:
            self.killed(slot(self.world.seen().idle))
        self.nobody_noticed(found[0])
        self.world.steady()

    def live_with_standby(self) -> None:
        """The standby takes over what was in flight and what comes next."""
        self.with_standby()
        before, standby = self.world.live, self.world.standby
        with self.load() as found:
            at = self.killed(slot(self.world.seen().route.live or "blue"))
            wait_for(lambda: self.world.serving.answers_with(before), 150)
        self.nobody_noticed(found[0])
        gap = found[0].longest_gap(at, at + 10)
        must(set(found[0].version) == {before, standby}, f"answered by {set(found[0].version)}")
        must(gap <= AGAIN_S, f"nobody was answered for {gap:.1f} s")
        self.figure("live_killed_gap_s", gap)
        self.world.steady()

    def live_while_staging(self) -> None:
        """No standby then: what is asked meanwhile is refused with 503, and the slot comes back by itself."""
        self.with_standby()
        live = self.world.live
        with self.load() as found:
            run, future, _ = self.begun("blue_green", GLOOMY, "staged")
            at = self.killed(slot(self.world.seen().route.live or "blue"))
            future.result()
        answers = found[0]
        must(set(answers.result.statuses) <= {200, 503}, f"answered {answers.problem}")
        must(len(answers.result.failures) <= IN_FLIGHT, f"lost {answers.problem}")
        self.figure("live_killed_while_staging_back_s", answers.longest_gap(at, at + 60))
        must(run.outcome == "done" and live != self.world.live, f"{run.outcome}, {self.world.live} is live")
        self.world.steady()

    def dies_after_its_switch(self) -> None:
        """Row 11: reverted by itself, and the standby answers until then."""
        self.with_standby()
        before = self.world.live
        with self.load() as found:
            run, future, _ = self.begun("blue_green, long", GLOOMY, "switched")
            green: Colour = self.world.seen().route.live or "blue"
            at = self.kill(slot(green))
            wait_for(lambda: self.world.seen().route.live != green or future.done(), 300)
            back = time.monotonic() - at
            future.result()
        must(run.outcome == "reverted" and self.world.live == before, f"{run.outcome}, {self.world.live} is live")
        must(back <= REVERTED_S, f"the route went back after {back:.1f} s")
        self.nobody_noticed(found[0])
        self.figure("reverted_after_s", back)
        self.world.steady()

    def never_ready(self, version: str, manifest: str = "blue_green") -> None:
        """Rows 10 and 12: what cannot be loaded, or answers its smoke requests wrongly, never gets a request."""
        self.with_standby()
        before = self.world.live
        with self.load() as found:
            self.world.deploy(version, manifest, "rejected")
        must(set(found[0].version) == {before}, f"answered by {set(found[0].version)}")
        self.nobody_noticed(found[0])
        self.world.steady()

    def hangs_before_ready(self) -> None:
        """Row 10: a slot that is held up is given up after its patience, and what held it does not stop its end."""
        self.with_standby()
        before = self.world.live
        with self.load() as found:
            idle = slot(self.world.seen().idle)
            earlier = self.world.pid(idle)
            run, future, _ = self.begun("blue_green, impatient", GLOOMY, "staged")
            wait_for(lambda: self.world.pid(idle) not in (0, earlier))
            self.kill(idle, signal.SIGSTOP)
            future.result()
        must(run.outcome == "rejected" and self.world.live == before, f"{run.outcome}, {self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    def bad_canary(self) -> None:
        """Row 13: it had a share of the requests, and ends on the first look that proves it."""
        self.with_standby()
        before = self.world.live
        with self.load() as found:
            self.world.deploy(GLOOMY, "canary, strict", "rejected")
        must(self.world.live == before and set(found[0].version) == {before, GLOOMY}, f"{set(found[0].version)}")
        self.figure("bad_canary_share", float(np.mean(found[0].version == GLOOMY)))
        self.nobody_noticed(found[0])
        self.world.steady()

    # --- the proxy ------------------------------------------------------------------------------------------------

    def proxy_killed(self) -> None:
        """Row 17: it comes back on the same route; lost is what was under way, and what found no listener."""
        self.with_standby()
        before = self.world.seen().route
        with self.load() as found:
            at = self.killed("envoy")
            wait_for(lambda: self.world.serving.answers_with(self.world.live))
        must(self.world.seen().route == before, f"the route became {self.world.seen().route}")
        gap = found[0].longest_gap(at, at + 30)
        must(gap <= AGAIN_S, f"nobody was answered for {gap:.1f} s")
        self.figure("proxy_killed_gap_s", gap)
        self.figure("proxy_killed_failed", found[0].failed)
        self.world.steady()

    def proxy_away(self) -> None:
        """Row 16: a release waits for a proxy that is away, says so, and is none the worse when it is back."""
        self.with_standby()
        run = self.world.run(manifest="blue_green", version=GLOOMY)
        must(self.world.task(run, "want") == 0, run.output())
        self.world.serving.stop("envoy")
        code = self.world.task(run, "rollout")
        self.world.serving.start_all()
        must(code == 1 and "Envoy at" in run.output(), f"{code}: {run.output()}")
        self.world.carry_out(run)
        must(run.outcome == "done" and self.world.live == GLOOMY, f"{run.outcome}, {self.world.live} is live")
        self.world.steady()

    # --- MLflow, disks --------------------------------------------------------------------------------------------

    def rollback_without_mlflow(self) -> None:
        """Row 15: the slot of the earlier version was given away; it comes back from this machine's own copy."""
        self.with_standby()
        back, bad = self.world.standby, self.world.live
        self.world.deploy(DEMANDING, "blue_green, strict", "rejected")  # takes the slot of what stood by
        self.away("mlflow")
        try:
            with self.load() as found:
                run = self.world.run("rollback", version=back)
                codes = [self.world.task(run, task) for task in ("want", "rollout")]
                must(codes == [0, 0] and run.outcome == "done", f"{codes}: {run.output()}")
                must(self.world.live == back != bad, f"{self.world.live} is live")
        finally:
            self.world.serving.start_all()
        must(self.world.task(run, "go_live") == 0, run.output())
        self.nobody_noticed(found[0])
        self.world.steady()

    def disk_full(self, part: str) -> None:
        """Row 22: no room for verdicts, or for how far a release has come: one sentence, and the retry goes on."""
        self.with_standby()
        version, place = self.another(), self.world.serving.root / part
        run = self.world.run(manifest="blue_green", version=version)
        must(self.world.task(run, "want") == 0, run.output())
        subprocess.run(["cp", "-a", str(place), f"{place}.kept"], check=True)
        with self.load() as found:
            with small_disk(place, 4096):
                subprocess.run(f"cp -a {place}.kept/. {place}/; head -c 8M /dev/zero > {place}/full", shell=True)
                code = self.world.task(run, "rollout")
            subprocess.run(["rm", "-rf", f"{place}.kept"], check=True)
            must(code == 1 and "cannot be written (No space left on device)" in run.output(), f"{code} {run.output()}")
            self.world.carry_out(run)
        must(run.outcome == "done" and self.world.live == version, f"{run.outcome}, {self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    # --- other runs -----------------------------------------------------------------------------------------------

    def held_up(self, lock: int) -> None:
        """Row 4: a run that is stopped before it takes the lock, and goes on when others have long gone by."""
        self.with_standby()
        before, version = self.world.live, self.another()
        run = self.world.run(manifest="blue_green", version=GLOOMY)
        must(self.world.task(run, "want") == 0, run.output())
        with self.load() as found:
            with self.stopped(run, Point(LOCK, lock, signal.SIGSTOP)) as held:
                self.world.roll_back(before)
                self.world.deploy(version)
                slots = {colour: self.world.pid(colour) for colour in ("slot-blue", "slot-green")}
                at = time.monotonic()
            must(held.result() == 0 and run.outcome == "superseded", f"{run.outcome}: {run.output()}")
        done = [each.name for each in noted(run.effects("rollout")) if each.at > at]
        touched = [name for name in done if name.startswith(("rename routes", "rename <slot>", "call"))]
        must(not touched, f"the run that was held up did {touched}")
        now = {colour: self.world.pid(colour) for colour in ("slot-blue", "slot-green")}
        must(now == slots, f"slots were restarted: {slots} {now}")
        must(self.world.live == version, f"{self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    def keeps_the_lock(self) -> None:
        """Row 4: a run that is stopped with the lock in its hand; others say so, and all go on when it does."""
        self.with_standby()
        run = self.world.run(manifest="blue_green", version=GLOOMY)
        must(self.world.task(run, "want") == 0, run.output())
        with self.load() as found:
            with self.stopped(run, Point("rename <slot>.json", 1, signal.SIGSTOP)) as held:
                later = self.world.run(manifest="blue_green", version=self.another())
                code = self.world.task(later, "want", seconds=120)
            must(code == 1 and "is held by another process" in later.output(), f"{code}: {later.output()}")
            must(held.result() == 0 and run.outcome == "done", f"{run.outcome}: {run.output()}")
            self.world.carry_out(run)
            self.world.carry_out(later)
        must(later.outcome == "done" and self.world.live != GLOOMY, f"{later.outcome}, {self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    def two_at_once(self, times: int) -> None:
        """Row 19: both are told to go at the same moment; one of them is live in the end, and the other says so."""
        self.with_standby()
        with self.load() as found:
            for _ in range(times):
                before = self.world.live
                pair = [self.world.run(version=version) for version in (GOOD, OTHER, GLOOMY) if version != before]
                barrier = Barrier(len(pair))
                futures = [begun(partial(self._together, barrier, run)) for run in pair]
                outcomes = [future.result() for future in futures]
                must(set(outcomes) <= {"done", "superseded"} and "done" in outcomes, f"ended as {outcomes}")
                self.world.steady()
        self.nobody_noticed(found[0])

    def one_wish_of_five(self) -> None:
        """Row 18: the same version is asked for five times at the same moment; it goes live once, by one switch."""
        self.with_standby()
        version, barrier = self.another(), Barrier(5)
        with self.load() as found:
            runs = [self.world.run(version=version) for _ in range(5)]
            outcomes = [each.result() for each in [begun(partial(self._together, barrier, run)) for run in runs]]
        must(set(outcomes) <= {"done", "superseded"} and "done" in outcomes, f"ended as {outcomes}")
        effects = sorted((each for run in runs for each in noted(run.effects("rollout"))), key=lambda each: each.at)
        moved = [
            colour for _, colour, _ in switches(effects, [])
        ]  # a later wish for what is live already moves nothing
        must(len(moved) == 1 and self.world.live == version, f"traffic went to {moved}, {self.world.live} is live")
        self.nobody_noticed(found[0])
        self.world.steady()

    def _together(self, barrier: Barrier, run: Run) -> str:
        barrier.wait(60)
        self.world.carry_out(run, retries=6)
        return run.outcome

    def wishes_at_once(self, rounds: int, runs: int = 8) -> None:
        """Row 19: of many wishes stored at the same moment each has a generation of its own, and the last is wanted."""
        self.with_standby()
        for _ in range(rounds):
            pool = [self.world.run("rollback", version=self.world.live) for _ in range(runs)]
            barrier = Barrier(runs)
            done = [future.result() for future in [begun(partial(self._wish, barrier, run)) for run in pool]]
            generations = sorted(done)
            wanted = self.world.serving.target.read_desired_state()
            must(len(set(generations)) == runs, f"generations {generations}")
            must(wanted is not None and wanted.generation == generations[-1], f"wanted {wanted}, stored {generations}")
        self.world.roll_back(self.world.live)

    def _wish(self, barrier: Barrier, run: Run) -> int:
        barrier.wait(60)
        must(self.world.task(run, "want") == 0, run.output())
        return int((run.result("want") or {})["generation"])


def of_faults(world: World, outcomes: Outcomes, quick: bool) -> list[Named]:
    faults = Faults(world, outcomes)
    times = 1 if quick else 20
    named: list[tuple[str, Callable[[], None]]] = [
        ("live slot killed with a warm standby: nobody notices", faults.live_with_standby),
        ("live slot killed while staging: 503 until it is back by itself", faults.live_while_staging),
        ("standby killed: nobody notices", faults.idle_slot),
        ("11 candidate killed in its canary: turned down, nobody notices", faults.green_in_canary),
        ("14 candidate stops answering in its canary", partial(faults.green_in_canary, signal.SIGSTOP)),
        ("11 release killed at its switch: reverted, nobody notices", faults.dies_after_its_switch),
        ("10 release that cannot be loaded never serves", partial(faults.never_ready, UNLOADABLE)),
        ("10 slot held up before it is ready: given up", faults.hangs_before_ready),
        ("12 wrong smoke answers never serve", partial(faults.never_ready, DEMANDING)),
        ("13 other scores in a canary: turned down", faults.bad_canary),
        ("16 proxy away at a switch: said, and gone on with", faults.proxy_away),
        ("17 proxy killed: back on the same route", faults.proxy_killed),
        ("15 rollback to a version whose slot was given away, MLflow down", faults.rollback_without_mlflow),
        *((f"4 held up before lock {n}: a stale run writes nothing", partial(faults.held_up, n)) for n in (1, 2, 4)),
        ("4 held up with the lock in its hand: others say so", faults.keeps_the_lock),
        ("18 the same version wanted five times at the same moment: traffic moves once", faults.one_wish_of_five),
        ("19 two deployments at the same moment", partial(faults.two_at_once, times)),
        ("19 eight wishes at the same moment", partial(faults.wishes_at_once, 1 if quick else 50)),
    ]
    if may_mount(world.home):
        for part in ("verdicts", "progress"):
            named.append((f"22 no room for {part}: said, and gone on with", partial(faults.disk_full, part)))
    return [(f"fault: {name}", story) for name, story in named]
