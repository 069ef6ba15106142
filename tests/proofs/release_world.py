"""What the parts of `make prove-release` share: a stack, versions to release into it, runs of the DAGs, and a load.

Everything is real: Envoy, two slots and MLflow under their process manager, versions registered and blessed in MLflow,
a store with a validated day, and the operators of the DAGs, each task in a process that can be killed (release_dag).
The load runs in a process of its own through the proxy, and keeps for every answer when it came, by which slot and
which version.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from include import manifest as manifests
from include.data.wiring import open_snapshot_store
from include.embedded.configuration.settings import ProgramName
from include.kernel.files import DRAFT_PATTERN
from include.kernel.wiring import open_ledger
from include.kernel.words.colours import Colour, other
from include.manifest import read_manifest
from include.registry.wiring import open_registry
from include.release.core.rollout import ObservedStatus
from tests import blessed, credit, ground, load
from tests.ground import wait_for
from tests.job_world import FIRST, publish
from tests.load import Plan, Result
from tests.proofs.outcomes import must
from tests.proofs.release_dag import SKIPPED, TASKS, WITHOUT, Dag, Run, server, work
from tests.proofs.release_points import Effect, Point, noted
from tests.served import MODEL, Serving, Trained

ROOT = Path(__file__).resolve().parents[2]
SHELF = ("1", "2", "gloomy", "extra-column", "unloadable")  # in the order they are registered: versions 1 to 5
GOOD, OTHER, GLOOMY, DEMANDING, UNLOADABLE = "1", "2", "3", "4", "5"
WIDE = {what: {"tolerated": 0.6, "limit": 0.9} for what in ("latency", "scores", "decisions")}
CANARY = {
    "weights": [20, 50],
    "min_requests": 30,
    "look_s": 0.1,
    "looks": 600,
    "errors": {"tolerated": 0.05, "limit": 0.5},
    **WIDE,
}
SHADOW = {
    "min_requests": 30,
    "look_s": 0.1,
    "max_errors": 0.5,
    "max_flips": 1.0,
    "max_score_delta": 1.0,
    "max_latency_ratio": 1000.0,
    "slice_flips": 1.0,
}
STRICT = CANARY | {"scores": {"tolerated": 0.0, "limit": 0.01}, "min_requests": 100_000}
QUICK = {"name": MODEL, "release.soak_s": 0.5}
LONG = {"name": MODEL, "release.soak_s": 60.0}
MIRRORED = {"release.strategy": "canary", "release.shadow": SHADOW}  # copies first, then shares
MANIFESTS: dict[str, dict[str, Any]] = {
    "blue_green": QUICK,
    "canary": QUICK | MIRRORED | {"release.canary": CANARY},
    "blue_green, strict": QUICK,
    "canary, strict": QUICK | MIRRORED | {"release.canary": STRICT},
    "blue_green, long": LONG,
    "blue_green, soaking": QUICK | {"release.soak_s": 8.0},
    "blue_green, impatient": QUICK | {"serving.ready_timeout_s": 5},
    "blue_green, spoiled": LONG,
    "canary, spoiled": LONG | MIRRORED | {"release.canary": CANARY},
    "canary, long": LONG | MIRRORED | {"release.canary": CANARY | {"min_requests": 2_000}},
}
STRATEGIES = ("blue_green", "canary")
CURRENT = "current.yaml"  # what the stack itself is told; a copy of one of them
KEPT = ("x-evergreen-slot", "x-evergreen-version", "x-request-id", "x-evergreen-generation")
BODIES = [json.dumps({"rows": [row]}).encode() for row in credit.rows()[:64]]
STEADY = 300.0  # requests a second
LONGEST_S = 3600.0  # of a load, which ends with its block


@dataclass(frozen=True)
class Answers:
    """What the clients of one load were answered, in the order of the answers; `at` is time.monotonic, in seconds."""

    result: Result
    at: NDArray[np.float64]
    slot: NDArray[np.str_]
    version: NDArray[np.str_]
    ids: list[str]

    @staticmethod
    def of(result: Result) -> Answers:
        slots, versions, ids, _ = zip(*result.kept, strict=True) if result.kept else ((), (), (), ())
        return Answers(result, result.due + result.latency, np.array(slots), np.array(versions), list(ids))

    @property
    def failed(self) -> int:
        return self.result.failed

    @property
    def problem(self) -> str:
        """What went wrong for clients, by kind; empty when nothing did."""
        bad = {status: count for status, count in self.result.statuses.items() if status != 200}
        return f"{bad or ''}{self.result.summary()['failures'] or ''}"

    def last(self, of: NDArray[np.bool_], since: float, until: float = np.inf) -> float:
        """Seconds from `since` to the last of these answers before `until`; 0 where there is none."""
        found = self.at[of & (self.at > since) & (self.at < until)]
        return float(found.max() - since) if found.size else 0.0

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time without a good answer, in seconds."""
        good = self.at[(self.result.status == 200) & (self.at > since) & (self.at < until)]
        return float(np.diff(np.concatenate([[since], np.sort(good)])).max()) if good.size else until - since


@dataclass
class World:
    home: Path
    serving: Serving
    runs: list[Run] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)  # when `make rollback` was called
    digests: dict[str, str] = field(default_factory=dict)  # by version
    environment: dict[str, str] = field(default_factory=dict)  # what every task of this stack sees
    kills: int = 0  # tasks that were killed by SIGKILL
    tasks: Any = field(default_factory=server)
    without: str = ""  # the guard that tasks are run without
    _number: int = 0

    # --- runs of the DAGs -----------------------------------------------------------------------------------------

    def run(self, dag: Dag = "deploy", manifest: str = "blue_green", **params: str) -> Run:
        """A new run, of which no task has begun."""
        self._number += 1
        place = self.home / "runs" / f"{dag}-{self._number}"
        place.mkdir(parents=True)
        told = {**self.environment, "EVERGREEN_MANIFEST": str(self.manifest(manifest)), WITHOUT: self.without}
        made = Run(dag, params, place, told)
        self.runs.append(made)
        return made

    def manifest(self, name: str) -> Path:
        return self.home / f"{name.replace(', ', '-')}.yaml"

    def task(self, run: Run, name: str, fatal: Point | None = None, seconds: float = 300) -> int:
        """Runs one task in a process of its own; gives its exit code, -9 for one that was killed."""
        process = self.tasks.Process(target=work, args=(run, name, fatal))
        process.start()
        process.join(seconds)
        must(process.exitcode is not None, f"{run.name}: {name} does not end")
        self.kills += process.exitcode == -signal.SIGKILL
        return int(process.exitcode)

    def carry_out(self, run: Run, fatal: Mapping[str, Point] | None = None, retries: int = 2) -> Run:
        """All tasks in their order; one that is killed or fails for the time being is retried, as Airflow does."""
        for name in TASKS:
            code = self.task(run, name, (fatal or {}).get(name))
            for _ in range(retries):
                if code in (0, SKIPPED):
                    break
                code = self.task(run, name)
            must(code in (0, SKIPPED), f"{run.name}: {name} ended with {code}: {run.output()[-700:]}")
        return run

    def deploy(self, version: str, manifest: str = "blue_green", expect: str = "done", **more: Any) -> Run:
        """A whole run of the deploy DAG, which must end so."""
        run = self.carry_out(self.run("deploy", manifest, version=version), **more)
        must(run.outcome == expect, f"{run.name} of version {version}: {run.outcome}, not {expect}: {run.output()}")
        return run

    def roll_back(self, version: str = "", **more: Any) -> Run:
        """A whole run of the rollback DAG."""
        run = self.carry_out(self.run("rollback", version=version), **more)
        must(run.outcome == "done", f"{run.name}: {run.outcome}: {run.output()}")
        return run

    def command(self) -> tuple[float, str]:
        """`make rollback` as a person calls it; the moment it was called (time.monotonic), and what it said."""
        began = time.monotonic()
        self.commands.append(began)
        environment = os.environ | self._settings()
        done = subprocess.run(
            ["make", "rollback", "WHY=it is bad"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        must(
            done.returncode == 0,
            f"make rollback ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-900:]}",
        )
        return began, done.stdout

    def _settings(self) -> dict[str, str]:
        """The stack's settings as variables, for a command that is not told of this stack otherwise."""
        told = self.serving.stack.settings.model_dump(mode="json")
        plain = {f"EVERGREEN_{name.upper()}": str(value) for name, value in told.items() if name != "programs"}
        return plain | {"EVERGREEN_SNAPSHOTS": "", "PYTHONPATH": ""}

    # --- what is looked at ----------------------------------------------------------------------------------------

    def seen(self) -> ObservedStatus:
        return self.serving.target.observe()

    @property
    def live(self) -> str:
        release = self.seen().live.release
        return release.version if release else ""

    @property
    def standby(self) -> str:
        seen = self.seen()
        release = seen.get_slot(seen.idle).release
        return release.version if release else ""

    def effects(self) -> list[Effect]:
        """Of all runs, oldest first."""
        return sorted(
            (each for run in self.runs for task in TASKS for each in noted(run.effects(task))), key=lambda each: each.at
        )

    def steady(self, seconds: float = 150) -> None:
        """I1, I2, I6: one release is live, served, champion and last in the ledger."""
        wait_for(lambda: self.serving.answers_with(self.live), seconds)
        seen, wanted = self.seen(), self.serving.target.read_desired_state()
        must(wanted is not None and seen.route.live is not None, f"nothing is live: {seen}")
        must(seen.live.ready and not seen.route.is_split, f"found {seen}")
        entries = [entry.subject for entry in open_ledger().read_entries("release.live")]
        must(entries[-1:] == [self.live], f"{self.live} is live, and the ledger says {entries[-1:]}")
        champion = open_registry(read_manifest().name).find_champion()
        must(champion == self.live, f"{self.live} is live, and the champion is {champion}")

    def drafts(self) -> list[Path]:
        """What killed writers left behind."""
        return list(self.serving.root.rglob(DRAFT_PATTERN))

    def pid(self, program: ProgramName) -> int:
        return int(self.serving.stack.supervisor.read_statuses()[program].pid)

    def rss_mib(self, program: ProgramName) -> float:
        return float(psutil.Process(self.pid(program)).memory_info().rss) / 2**20

    # --- load -----------------------------------------------------------------------------------------------------

    @contextmanager
    def load(self, rate: float | None = STEADY, connections: int = 16) -> Iterator[list[Answers]]:
        """Clients that ask through the proxy while the block runs; what they were answered is in the list then."""
        found: list[Answers] = []
        stop = self.home / f"stop-{time.monotonic_ns()}"
        url = f"{self.serving.addresses.proxy}/predict"
        plan = Plan(url, BODIES, connections, LONGEST_S, rate=rate, timeout_s=30, kept=KEPT, stop=stop, spin_s=0)
        with load.process() as pool:
            running: Future[Result] = pool.submit(load.run, plan)
            try:
                self._await_traffic()
                yield found
                time.sleep(0.5)  # not a wait: half a second of load after what happened in the block
            finally:
                stop.touch()
                found.append(Answers.of(running.result()))

    def _await_traffic(self) -> None:
        def answered() -> int:
            return self.serving.answered_by("blue") + self.serving.answered_by("green")

        before = answered()
        wait_for(lambda: answered() > before + 20)


def begun(action: Callable[[], Any]) -> Future[Any]:
    """Something that goes on while this process does something else."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(action)
    pool.shutdown(wait=False)
    return future


def slot(colour: Colour) -> ProgramName:
    return "slot-blue" if colour == "blue" else "slot-green"


def switches(effects: list[Effect], ends: list[float]) -> list[tuple[float, Colour, float]]:
    """When a route was put in force that made another slot live, which, and until when it held at least.

    `ends` are moments at which somebody else may have written a route.
    """
    written = [each for each in effects if each.route and "none" not in each.route]
    moments = sorted([*(each.at for each in written), *ends])
    found, last, before = [], None, 0.0
    for each in written:
        colour: Colour = "blue" if each.route.split("-")[1].startswith("blue") else "green"
        is_known = not any(before < end < each.at for end in ends)
        if is_known and last not in (None, colour):
            found.append((each.at, colour, next((at for at in moments if at > each.at), np.inf)))
        last, before = colour, each.at
    return found


def last_of_the_old(answers: Answers, found: list[tuple[float, Colour, float]]) -> list[float]:
    """For each switch, seconds until the last answer of the slot that was live before."""
    return [answers.last(answers.slot == other(colour), at, until) for at, colour, until in found]


@contextmanager
def world(home: Path, *more: ProgramName, **settings: Any) -> Iterator[World]:
    """Version 1 is live, as the deploy DAG left it."""
    for name, changes in MANIFESTS.items():
        ground.write_manifest(home / f"{name.replace(', ', '-')}.yaml", ground.SMALL | changes)
    shutil.copy(home / "blue_green.yaml", home / CURRENT)
    programs: tuple[ProgramName, ...] = ("mlflow", "envoy", "slot-blue", "slot-green", *more)
    with ground.stack(home, *programs, manifest=home / CURRENT, **settings) as stack:
        serving = Serving(stack)
        environment = _environment(stack.build_env(), home)
        os.environ.update(environment)
        publish(open_snapshot_store(), manifests.load(home / "blue_green.yaml"), FIRST)
        digests = _register(Trained(home / "shelf"))
        made = World(home, serving, digests=digests, environment=environment)
        made.deploy(GOOD)
        yield made


def _environment(told: Mapping[str, str], home: Path) -> dict[str, str]:
    """Not the PATH: the stack's own is made of it, and a stack whose settings have changed is restarted."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"
    kept = {name: value for name, value in told.items() if name.startswith(("EVERGREEN_", "AIRFLOW_", "MLFLOW_"))}
    return {**kept, "PYTHONPATH": path, "AIRFLOW_HOME": str(home / "airflow"), "NO_PROXY": "127.0.0.1,localhost"}


def _register(trained: Trained) -> dict[str, str]:
    """Every artifact of the shelf as a blessed version in MLflow, as the train DAG leaves it; digests by version."""
    registry, digests = open_registry(read_manifest().name), {}
    for name in SHELF:
        release = trained.release(name)
        with registry.open_client() as client:
            run_id = client.create_run("0").info.run_id
            client.log_artifacts(run_id, str(trained.root / name), "serving")
        version = registry.register(run_id, f"runs:/{run_id}/serving", name)
        content = blessed.document(model=MODEL, version=version, digest=release.digest, run_id=run_id)
        registry.bless(version, blessed.envelope(content))
        digests[version] = release.digest
    return digests
