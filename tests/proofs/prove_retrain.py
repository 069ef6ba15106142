"""`make prove-retrain`: a storm of drift events asks for one training, whoever decides, whoever is killed.

Real processes run the real tasks of the `watch` and `retrain` DAGs on a real store and ledger.

1. Storm. A thousand drift events of several episodes reach two schedulers, each with four deciders; each event is a run
   of both, since events are delivered at least once. The first decision of all eight is taken before any is entered.
   Deciders are killed with SIGKILL all the time, and surely before, in the middle of and behind each entry of the
   ledger, and others take their place. One training may be requested, and the ledger's chain must be whole.
2. Announcements. The same for one episode that many watch runs see: it is announced once.
3. Later on, when the cooldown is over and new labels are known, a hundred events of a new drift get one more.
4. Refusals. One obstacle at a time: the weekly run is refused, a drift is refused or waits, each with its reason, and
   without the obstacle the same run gets its training.
5. The ledger's compare-and-set is switched off: the proof must notice, or it proves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCHEDULERS, DECIDERS = ("a", "b"), 4
FIRST = date(2026, 8, 1)
TRAINED = date(2026, 7, 20)
# Deciders are forked from a process that has imported Airflow and done nothing: polars' threads do not survive a fork.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.proofs.deciders"])
DEADLINE_S = 1500


@dataclass
class World:
    """A store with some validated days and a model that was trained before them."""

    home: Path
    changes: dict[str, object] = field(default_factory=dict)

    def __enter__(self) -> World:
        from tests import ground
        from tests.job_world import publish

        self.home.mkdir(parents=True)
        made = ground.write_manifest(self.home / "pipeline.yaml", ground.SMALL | {"source.days": 10} | self.changes)
        nowhere = dict.fromkeys(("SERVING_URL", "ENVOY_ADMIN_URL", "SUPERVISOR_URL"), "http://127.0.0.1:9")
        nowhere |= dict.fromkeys(("BLUE_PORT", "GREEN_PORT"), "9")
        places = {"STORE": str(self.home / "store"), "SERVING_DIR": str(self.home / "serving"), "MANIFEST": str(made)}
        os.environ |= {f"EVERGREEN_{name}": value for name, value in (places | nowhere).items()}
        self._publish = publish
        self.enter("model.trained", "a run", as_of=str(TRAINED), intent="live")
        self.enter("release.live", "3")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def days(self, first: int, last: int, **more: Any) -> None:
        from include.data.wiring import open_snapshot_store
        from include.manifest import read_manifest

        for number in range(first, last + 1):
            self._publish(open_snapshot_store(), read_manifest(), FIRST + timedelta(days=number - 1), **more)

    def enter(self, what: str, subject: str, **details: Any) -> None:
        from include.kernel.ledger import Entry
        from include.kernel.wiring import open_ledger

        key = f"{what} {subject} {sorted(details.items())} {len(open_ledger().read_lines())}"
        open_ledger().append(Entry(what=what, subject=subject, who="before", why="", details=details, key=key))

    def entered(self, what: str) -> int:
        from include.kernel.wiring import open_ledger

        return len(list(open_ledger().read_entries(what)))

    def broken_chain(self) -> int | None:
        from include.kernel.ledger import find_broken_entry
        from include.kernel.wiring import open_ledger

        return find_broken_entry(open_ledger().read_lines())


class Storm:
    """Eight deciders, each restarted until it has worked off its share."""

    def __init__(self, home: Path, events: list[tuple[str, str]], task: str = "retrain", sabotaged: bool = False):
        from tests.proofs.deciders import Share

        self.home, self.sabotaged, self.kills = home, sabotaged, 0
        self.traps = home / "traps"
        self.traps.mkdir(parents=True)
        self._random = random.Random(7)
        settings = {name: value for name, value in os.environ.items() if name.startswith("EVERGREEN_")}
        self.shares = [
            Share(tuple(runs[number::DECIDERS]), home / f"{scheduler}{number}.done", self.traps, settings, task)
            for scheduler in SCHEDULERS
            for runs in [self._runs(scheduler, events)]
            for number in range(DECIDERS)
        ]
        self.runs = sum(len(share.events) for share in self.shares)

    def _runs(self, scheduler: str, events: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Every event, in this scheduler's own order."""
        runs = [(f"{self.home.name}_{scheduler}{number}", *told) for number, told in enumerate(events)]
        self._random.shuffle(runs)
        return runs

    def lay(self, *names: str) -> None:
        from tests.proofs.deciders import PLACES

        for trap in [*(f"{name}.{place}" for name in names for place in PLACES), "end.before"]:
            (self.traps / trap).touch()

    def rage(self, together: bool, kill_every: int = 0) -> None:
        """Until all is done; after each `kill_every` runs that ended, one decider is killed."""
        barrier = FORK.Barrier(len(self.shares)) if together else None
        alive = {number: self._start(number, barrier) for number in range(len(self.shares))}
        killed_at, deadline = kill_every, time.monotonic() + DEADLINE_S
        while alive:
            assert time.monotonic() < deadline, f"{self.done()} of {self.runs} runs after {DEADLINE_S} s"
            multiprocessing.connection.wait([process.sentinel for process in alive.values()], timeout=0.02)
            for number, process in [(n, p) for n, p in alive.items() if p.exitcode is not None]:
                alive.pop(number)
                if process.exitcode:
                    self._must_be_killed(process.exitcode)
                    alive[number] = self._start(number)
            if kill_every and self.done() >= killed_at and alive:
                killed_at += kill_every
                alive[self._random.choice(sorted(alive))].kill()

    def _must_be_killed(self, code: int) -> None:
        assert code == -signal.SIGKILL, f"a decider ended with {code}"
        self.kills += 1

    def _start(self, number: int, barrier: Any = None) -> Any:
        from tests.proofs.deciders import work

        process = FORK.Process(target=work, args=(self.shares[number], barrier, self.sabotaged), daemon=True)
        process.start()
        return process

    def lines(self) -> Iterator[dict[str, str]]:
        for share in self.shares:
            if share.done.exists():
                yield from map(json.loads, share.done.read_text().splitlines())

    def done(self) -> int:
        return sum(share.done.read_bytes().count(b"\n") for share in self.shares if share.done.exists())

    def outcomes(self) -> Counter[str]:
        return Counter(line["outcome"] for line in self.lines())

    def unsprung(self) -> list[str]:
        return sorted(path.name for path in self.traps.iterdir())


def _events(count: int, *days: int) -> list[tuple[str, str]]:
    """(key, day) of events; twenty share an episode."""
    told = [str(FIRST + timedelta(days=days[number % len(days)] - 1)) for number in range(count)]
    return [(f"drift-3-{day}-{number // 20}", day) for number, day in enumerate(told)]


def storm(home: Path, count: int) -> dict[str, Any]:
    with World(home) as world:
        world.days(1, 4)
        raging = Storm(home / "storm", _events(count, 2, 3, 4))
        raging.lay("approved", "requested")
        raging.rage(together=True, kill_every=max(1, 2 * count // 60))
        first = _judged(raging, world, approved=1)
        print(f"storm: {first}", flush=True)
        world.enter("model.trained", "another run", as_of=str(FIRST + timedelta(days=4)), intent="live")
        world.days(5, 9)
        later = Storm(home / "later", _events(100, 9))
        later.rage(together=False, kill_every=20)
        return {"storm": first, "later": _judged(later, world, approved=2)}


def _judged(raging: Storm, world: World, approved: int, what: str = "retraining.approved") -> dict[str, Any]:
    """What came of it, and whether it is as it must be."""
    outcomes, chain = raging.outcomes(), world.broken_chain()
    problems = [
        f"{outcomes['yes']} were given a yes" if outcomes["yes"] != 1 else "",
        f"{found} entries {what}" if (found := world.entered(what)) != approved else "",
        f"{raging.done()} of {raging.runs} runs ended once" if raging.done() != raging.runs else "",
        f"the chain is broken at {chain}" if chain else "",
        f"nobody came by {raging.unsprung()}" if raging.unsprung() else "",
    ]
    told = {"runs": raging.runs, "yes": outcomes["yes"], "no": outcomes["no"], "wait": outcomes["wait"]}
    return {**told, "kills": raging.kills, "problems": [problem for problem in problems if problem]}


def announcements(home: Path, count: int) -> dict[str, Any]:
    """Many watch runs see one episode."""
    from include.monitoring.core.episodes import MonitorReport
    from include.monitoring.wiring import open_report_store

    with World(home) as world:
        for day in (2, 3):
            as_of = FIRST + timedelta(days=day - 1)
            open_report_store().write_report(
                MonitorReport(as_of=as_of, version="3", alarm=True, verdict="drifted", rows=400, moved={"Income": 0.4})
            )
        raging = Storm(home / "watch", _events(count, 3), task="watch")
        raging.lay("detected")
        raging.rage(together=False, kill_every=max(1, 2 * count // 20))
        return _judged(raging, world, approved=1, what="drift.detected")


# --- refusals ---------------------------------------------------------------------------------------------------------


def _cooldown(world: World) -> None:
    world.enter("retraining.approved", "2026-08-08", trigger="schedule")


def _budget(world: World) -> None:
    for day in ("2026-08-01", "2026-08-04"):
        world.enter("retraining.approved", day, trigger="schedule")


def _breaker(world: World) -> None:
    for run in ("one", "two"):
        told = {"as_of": "2026-08-03", "intent": "live", "run_type": "asset_triggered"}
        world.enter("gate.refused", run, **told)


def _release(_: World) -> None:
    from include.manifest import read_manifest
    from include.release.core.rollout import Release
    from include.release.wiring import open_target

    open_target(read_manifest()).request_release(
        Release(version="4", digest="d" * 64), by="deploy", why="blessed", kind="deploy"
    )


def _refused_day(world: World) -> None:
    world.enter("dataset.refused", "2026-08-10")


def _few_labels(world: World) -> None:
    world.enter("model.trained", "later", as_of="2026-08-04", intent="live")
    world.enter("model.trained", "latest", as_of="2026-08-05", intent="live")


def _nothing(_: World) -> None:
    pass


@dataclass(frozen=True)
class Refusal:
    """An obstacle; `told` is in the reason of the weekly run's no and of what a drift gets, which is `drift`."""

    name: str
    put: Callable[[World], None]
    told: str
    drift: str
    changes: dict[str, object] = field(default_factory=dict)


REFUSALS = (
    Refusal("cooldown", _cooldown, "the last training was 2 data days ago, the cooldown is 5", "wait"),
    Refusal(
        "budget",
        _budget,
        "2 trainings were approved in 2026-08, the monthly budget is 2",
        "no",
        {"retraining.monthly_budget": 2},
    ),
    Refusal("breaker", _breaker, "the gate refused the last 2 trainings", "no"),
    Refusal("in rollout", _release, "a release is under way", "wait"),
    Refusal("unvalidated", _refused_day, "the delivery of 2026-08-10 was refused", "wait"),
    Refusal("few labels", _few_labels, "new labelled rows of the 5000", "wait", {"retraining.min_new_labels": 5000}),
    Refusal("none", _nothing, "labelled rows the last training has not seen", "yes"),
)


def refusals(home: Path) -> list[dict[str, Any]]:
    return [told for number, case in enumerate(REFUSALS) for told in _refused(home / str(number), case)]


def _refused(home: Path, case: Refusal) -> Iterator[dict[str, Any]]:
    from tests.proofs import deciders
    from tests.proofs.deciders import retrain

    deciders.ExecutorSafeguard.test_mode = True
    for trigger, wanted in (("schedule", "yes" if case.drift == "yes" else "no"), ("drift", case.drift)):
        with World(home / trigger, case.changes) as world:
            world.days(1, 9)
            case.put(world)
            with contextlib.redirect_stdout(io.StringIO()):  # the tasks' own log
                verdict, why = retrain("a run", "drift-3-x", "2026-08-10", home / trigger / "xcom", trigger)
            reason = _waiting() if verdict == "wait" else why
            held = verdict == wanted and case.told in reason
            print(f"{'held' if held else 'BROKEN':6} {case.name:12} {trigger:8} {verdict:4} {reason}", flush=True)
            yield {"obstacle": case.name, "trigger": trigger, "verdict": verdict, "reason": reason, "held": held}


def _waiting() -> str:
    from include.manifest import read_manifest
    from include.retraining.wiring import open_wait_conditions

    conditions = open_wait_conditions(read_manifest())
    return conditions.weigh_retraining("drift", "2026-08-10", None, "drift-3-x")[1].sentence


def mutation(home: Path) -> dict[str, Any]:
    """Without the compare-and-set every one of the eight is given a yes, for all of them looked before one entered."""
    with World(home) as world:
        world.days(1, 4)
        raging = Storm(home / "storm", _events(8, 4), sabotaged=True)
        raging.rage(together=True)
        return _judged(raging, world, approved=1)


def prove(count: int, home: Path) -> dict[str, Any]:
    began = time.monotonic()
    document = storm(home / "storm", count)
    print(f"later: {document['later']}", flush=True)
    document["announcements"] = announcements(home / "announcements", max(20, count // 5))
    print(f"announcements: {document['announcements']}", flush=True)
    cases = refusals(home / "refusals")
    without = mutation(home / "mutation")
    print(f"without the compare-and-set: {without}", flush=True)
    parts = [document[name] for name in ("storm", "later", "announcements")]
    return {
        "ok": not any(part["problems"] for part in parts) and all(c["held"] for c in cases) and without["yes"] > 1,
        "events": count,
        "deciders": len(SCHEDULERS) * DECIDERS,
        **document,
        "refusals": {f"{c['obstacle']}, {c['trigger']}": c["verdict"] for c in cases},
        "refusals_held": f"{sum(c['held'] for c in cases)}/{len(cases)}",
        "trainings_without_compare_and_set": without["yes"],
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1000)
    count = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="evergreen-proof-") as home:
        os.environ |= {"AIRFLOW_HOME": f"{home}/airflow", "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False"}
        sys.path.insert(0, str(ROOT / "plugins"))
        document = prove(count, Path(home))
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
