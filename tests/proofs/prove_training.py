"""`make prove-training`: a training happens exactly once, wherever it is killed.

The train DAG's tasks (train, evaluate, bless) run against a real MLflow server. A dry run counts their outside
effects: requests to MLflow and writes to the store. Then, for point after point in a world as new, the task is killed
with SIGKILL

    request   before the n-th request has reached MLflow
    answer    after MLflow has done what the n-th request asked, and before the task knows
    write     before the n-th change of a file

and retried, as Airflow retries it. Afterwards there must be one finished run a candidate and none that is unfinished,
one logged model a run, one version with one blessing, one ledger entry of each kind, the artifact digest of the
undisturbed training, and no file of a study left. In between MLflow also goes away (outage): the task must end as
temporary within its patience, and its retry must find the same end.

`--points 0` takes every point; the default takes some of all three tasks, evenly spaced.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from include import manifest as manifests
from include.data.wiring import open_snapshot_store
from include.model.blessing.blessing import render_private_pem
from include.registry.mlflow_registry import BLESSING_TAG
from tests import ground
from tests.blessed import KEY
from tests.fault_proxy import fault_proxy
from tests.job_world import FIRST, LAST, publish
from tests.proofs.interruption import Ended, Point, Tasks, Watch

NAME = "credit-proof"
TASKS = ("train", "evaluate", "bless")
SOME = 48  # points, evenly spaced over the tasks
PATIENCE_S = 90  # an outage must be told within
TEMPORARY, KILLED = 75, -9


@dataclass(frozen=True)
class Case:
    task: str
    point: Point

    def __str__(self) -> str:
        return f"{self.task:9} {self.point.where:8} {self.point.number:3}"


class World:
    """A store and an MLflow experiment as new for each case; what was there is renamed away."""

    def __init__(self, home: Path, url: str, watch: Watch) -> None:
        self._home, self._watch, self._number = home, watch, 0
        self._client = MlflowClient(tracking_uri=url, registry_uri=url)
        self._manifest = ground.write_manifest(
            home / "pipeline.yaml", ground.SMALL | {"name": NAME, "gate.infra": None, "train.tuning": TUNING}
        )
        os.environ |= {"EVERGREEN_STORE": str(home / "days"), "EVERGREEN_MANIFEST": str(self._manifest)}
        spec = manifests.load(self._manifest)
        self.candidates = sorted(spec.train.candidates)
        for number in range(4):
            publish(open_snapshot_store(), spec, FIRST + timedelta(days=number))

    def renew(self) -> dict[str, str]:
        """The environment of the next case's tasks."""
        self._number += 1
        self._put_away()
        self.store, scratch = (self._home / f"{what}-{self._number}" for what in ("store", "scratch"))
        shutil.copytree(self._home / "days", self.store)
        scratch.mkdir()
        return {
            "EVERGREEN_MANIFEST": str(self._manifest),
            "EVERGREEN_STORE": str(self.store),
            "MLFLOW_TRACKING_URI": self._watch.url,
            "AIRFLOW_CONN_MLFLOW_DEFAULT": self._watch.url,
            "AIRFLOW_CONN_BLESSING_SIGNER": json.dumps({"conn_type": "generic", "password": render_private_pem(KEY)}),
            "PROOF_SCRATCH": str(scratch),
            "PROOF_AS_OF": str(LAST),
        }

    def _put_away(self) -> None:
        if found := self._client.get_experiment_by_name(NAME):
            self._client.rename_experiment(found.experiment_id, f"{NAME}-{self._number}")
        if any(model.name == NAME for model in self._client.search_registered_models()):
            self._client.rename_registered_model(NAME, f"{NAME}-{self._number}")

    def digests(self) -> dict[str, str]:
        return {run.data.params["candidate"]: run.data.tags["evergreen.digest"] for run in self._runs()}

    def _runs(self) -> list[Any]:
        experiment = self._client.get_experiment_by_name(NAME).experiment_id
        return list(self._client.search_runs([experiment], run_view_type=ViewType.ACTIVE_ONLY))

    def problems(self, digests: dict[str, str]) -> Iterator[str]:
        """What is not as after one undisturbed training."""
        runs = self._runs()
        states = sorted(run.info.status for run in runs)
        if states != ["FINISHED"] * len(self.candidates):
            yield f"runs are {states}"
        elif self.digests() != digests:
            yield "the artifact has another digest"
        experiment = self._client.get_experiment_by_name(NAME).experiment_id
        models = self._client.search_logged_models([experiment])
        if sorted(model.source_run_id for model in models) != sorted(run.info.run_id for run in runs):
            yield f"{len(models)} logged models of {len(runs)} runs"
        versions = self._client.search_model_versions(f"name = '{NAME}'")
        if len(versions) != 1 or BLESSING_TAG not in versions[0].tags:
            yield f"{len(versions)} versions, {sum(BLESSING_TAG in v.tags for v in versions)} blessed"
        told = [json.loads(line)["what"] for line in (self.store / "ledger.jsonl").read_text().splitlines()]
        if sorted(told) != ["model.blessed", "model.trained"]:
            yield f"the ledger tells {told}"
        if left := [path.name for path in (self.store / "studies").glob("*")]:
            yield f"files of a study are left: {left}"


# a study of three trials, so that a search is cut off too
TUNING = {"trials": 3, "space": {"boosting": {"learning_rate": {"low": 0.05, "high": 0.3, "log": True}}}}


class Proof:
    def __init__(self, world: World, tasks: Tasks) -> None:
        self.world, self.tasks = world, tasks
        self.digests: dict[str, str] = {}

    def undisturbed(self) -> dict[str, Ended]:
        """One training without any fault: it counts the effects, and its digests are what all others are held to."""
        environment = self.world.renew()
        ended = {task: self._must(self.tasks.run(task, environment), 0) for task in TASKS}
        self.digests = self.world.digests()
        again = {task: self._must(self.tasks.run(task, environment), 0) for task in TASKS}
        assert again["train"].requests < ended["train"].requests, "a training that is there was made again"
        problems = list(self.world.problems(self.digests))
        assert not problems, problems
        return ended

    def case(self, case: Case) -> str | None:
        """None when the world ends as it must, else what is wrong."""
        environment = self.world.renew()
        for task in TASKS:
            point = case.point if task == case.task else Point()
            began = time.monotonic()
            ended = self.tasks.run(task, environment, point)
            if task == case.task:
                wanted, patience = (TEMPORARY, PATIENCE_S) if point.where == "outage" else (KILLED, math.inf)
                if ended.code != wanted or time.monotonic() - began > patience:
                    return f"ended with {ended.code} after {time.monotonic() - began:.0f} s: {ended.output[-300:]}"
                ended = self.tasks.run(task, environment)
            if ended.code != 0:
                return f"{task} ended with {ended.code}: {ended.output[-300:]}"
        return "; ".join(self.world.problems(self.digests)) or None

    @staticmethod
    def _must(ended: Ended, code: int) -> Ended:
        if ended.code != code:
            raise SystemExit(f"the undisturbed training ended with {ended.code}:\n{ended.output}")
        return ended


def cases(effects: dict[str, Ended], some: int) -> list[Case]:
    """Points of all tasks, every one or about `some`; then an outage near the start, the middle and the end."""
    found = [Case(task, point) for task, ended in effects.items() for point in _points(ended)]
    count = effects["train"].requests
    outages = [Case("train", Point("outage", number)) for number in (1, count // 2, count - 1)]
    return (_spaced(found, some) if some else found) + outages


def _spaced(found: list[Case], some: int) -> list[Case]:
    """Of each kind of point of each task a fair share, at least one, evenly spaced."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in found:
        groups.setdefault((case.task, case.point.where), []).append(case)
    shares = [(group, max(1, round(some * len(group) / len(found)))) for group in groups.values()]
    return [group[(2 * place + 1) * len(group) // (2 * share)] for group, share in shares for place in range(share)]


def _points(ended: Ended) -> Iterator[Point]:
    for number in range(1, ended.requests + 1):
        yield Point("request", number)
        yield Point("answer", number)
    for number in range(1, ended.writes + 1):
        yield Point("write", number)


def prove(some: int, home: Path) -> dict[str, Any]:
    with ground.stack(home, "mlflow") as stack, fault_proxy(stack.settings.mlflow_url) as proxy:
        watch = Watch(proxy)
        tasks = Tasks(watch)
        try:
            return _proved(Proof(World(home, stack.settings.mlflow_url, watch), tasks), some)
        finally:
            tasks.close()


def _proved(proof: Proof, some: int) -> dict[str, Any]:
    effects = proof.undisturbed()
    for task, ended in effects.items():
        print(f"{task}: {ended.requests} requests, {ended.writes} writes", flush=True)
    asked, failed, began = cases(effects, some), [], time.monotonic()
    for number, case in enumerate(asked, 1):
        problem = proof.case(case)
        failed += [f"{case}: {problem}"] if problem else []
        print(f"{number:3}/{len(asked)} {case}  {problem or 'exactly once'}", flush=True)
    killed = sum(case.point.where != "outage" for case in asked)
    return {
        "ok": not failed and killed >= 12,
        "cases": len(asked),
        "passed": len(asked) - len(failed),
        "kill_points": killed,
        "outages": len(asked) - killed,
        "points_there_are": sum(2 * ended.requests + ended.writes for ended in effects.values()),
        "digests": proof.digests,
        "seconds": round(time.monotonic() - began),
        "failed": failed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=SOME, help="evenly spaced over the tasks; 0 takes every one")
    some = parser.parse_args().points
    with tempfile.TemporaryDirectory(prefix="evergreen-proof-") as home:
        document = prove(some, Path(home))
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
