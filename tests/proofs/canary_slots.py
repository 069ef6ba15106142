"""One fault of each kind, and one healthy release, in a canary of real slots behind a real Envoy: part of prove_canary.

Nothing is drawn here. Clients ask through the proxy, slots answer and count, and the driver of releases reads their
text. The bounds are the manifest's, but for latency where it is not what is asked: the slots, the proxy and the clients
share a few cores, and one slot may get less of them.

    errors      a version whose encoder refuses a category that it has not seen: some rows are answered 500
    latency     the same model in its generic form, which takes several times as long
    scores      the same model, found riskier by one in log-odds; its threshold moved along, so that no decision differs
    decisions   the same model and scores, and a yes to everybody
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from include import manifest as manifests
from include.manifest import Manifest
from include.model.artifact import Golden, ServableModel
from include.model.calibration import Calibration
from include.model.pipelines import build
from include.model.schema import conform
from include.release.core.rollout import ReleasePlan, Step
from include.release.service.driver import ReleaseDriver
from tests import credit, ground, load
from tests.load import Plan as Load
from tests.proofs.outcomes import must
from tests.served import MODEL, Serving, Trained

WEIGHT = 50
WIDE = {"tolerated": 0.6, "limit": 0.9}
UNSEEN = {**credit.rows()[0], "Job": "astronaut"}
ROWS = [*credit.rows()[:57], UNSEEN, UNSEEN, UNSEEN]  # one in twenty has a category that no training saw
BODIES = [json.dumps({"rows": [row]}).encode() for row in ROWS]
LONGEST_S = 300.0


@dataclass(frozen=True)
class Case:
    """A candidate beside a stable version; `ends` is the question that must end it, None where it must pass."""

    stable: str
    candidate: str
    ends: str | None


CASES = {
    "errors": Case("generic", "refusing", "errors"),
    "latency": Case("compiled", "generic", "latency"),
    "scores": Case("compiled", "riskier", "scores"),
    "decisions": Case("compiled", "yes-to-all", "decisions"),
    "healthy": Case("compiled", "compiled-again", None),
}


class Shelf(Trained):
    """One model, and what may go wrong with it; a version's number is its place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        model = _trained()
        self._save_compiled("compiled", model)
        self._save_compiled("compiled-again", _changed(model, why="trained again"))
        self._save("generic", model)
        self._save("refusing", _refusing(model))
        self._save_compiled("riskier", _riskier(model))
        self._save_compiled("yes-to-all", _changed(model, threshold=0.0))


def _trained() -> ServableModel:
    """The example's, but that every category was missing once: a slot warms a model with an empty row."""
    known = credit.trained("logistic")
    table = credit.data().copy()
    table.loc[0, "Records"] = None
    truth = (table[credit.LABEL] == known.meta.positive).astype(int)
    pipeline = build("logistic", credit.columns(), {}, seed=7).fit(conform(table, credit.columns()), truth)
    found = ServableModel(known.meta, pipeline).predict_proba([golden.row for golden in known.meta.golden])
    golden = tuple(Golden(row=g.row, probability=float(p)) for g, p in zip(known.meta.golden, found, strict=True))
    return ServableModel(known.meta.model_copy(update={"golden": golden}), pipeline)


def _changed(model: ServableModel, **changes: Any) -> ServableModel:
    return ServableModel(model.meta.model_copy(update=changes), model.pipeline)


def _refusing(model: ServableModel) -> ServableModel:
    pipeline = copy.deepcopy(model.pipeline)
    encoders = list(_encoders(pipeline))
    assert encoders
    for encoder in encoders:
        encoder.handle_unknown = "error"
    return ServableModel(model.meta, pipeline)


def _encoders(step: Any) -> Iterator[OneHotEncoder]:
    if isinstance(step, OneHotEncoder):
        yield step
    for _, inner, *_ in getattr(step, "steps", None) or getattr(step, "transformers_", ()):
        yield from _encoders(inner)


def _riskier(model: ServableModel) -> ServableModel:
    calibration = Calibration(method="sigmoid", intercept=1.0)
    moved = calibration(np.array([golden.probability for golden in model.meta.golden]))
    golden = tuple(Golden(row=g.row, probability=float(p)) for g, p in zip(model.meta.golden, moved, strict=True))
    threshold = float(calibration(np.array([model.meta.threshold]))[0])
    return _changed(model, calibration=calibration, golden=golden, threshold=threshold)


def run(home: Path) -> dict[str, dict[str, Any]]:
    """Of each case: whether it ended as it must, why, after how many requests of both slots and how many seconds."""
    shelf = Shelf(home / "shelf")
    made = {name: _manifest(home / f"{name}.yaml", case) for name, case in CASES.items()}
    with ground.stack(home, "envoy", "slot-blue", "slot-green", manifest=home / "healthy.yaml") as stack:
        serving = Serving(stack)
        return {name: _run(serving, shelf, case, made[name], home) for name, case in CASES.items()}


def _manifest(path: Path, case: Case) -> Manifest:
    latency = {} if case.ends == "latency" else {"latency": WIDE}
    canary = {"weights": [WEIGHT], "look_s": 0.5, "looks": 400, **latency}
    ground.write_manifest(path, ground.SMALL | {"name": MODEL, "release.soak_s": 0.5, "release.canary": canary})
    return manifests.load(path)


def _run(serving: Serving, shelf: Shelf, case: Case, manifest: Manifest, home: Path) -> dict[str, Any]:
    serving.forget()
    serving.go_live("blue", serving.want(shelf.release(case.stable)), shelf.root / case.stable)
    wanted = serving.want(shelf.release(case.candidate), by="next", plan=ReleasePlan(weights=(WEIGHT,)))
    driver = ReleaseDriver(serving.target, shelf, manifest, credit.rows()[:5])  # type: ignore[arg-type]
    began = time.monotonic()
    with _clients(serving, home):
        steps = [step for step, _ in driver.run(wanted.generation)]
    told = serving.target.read_verdicts(wanted.generation)
    must("canary-1" in told, f"{case.candidate} did not come to its canary: {told}")
    why = told["canary-1"]["why"]
    since = serving.target.read_progress(wanted.generation, "canary-1")["since"]
    ended = steps[-1] is (Step.REJECTED if case.ends else Step.DONE)
    asked = f"{WEIGHT} %: {f'{case.ends} worse by' if case.ends else 'no worse'}"
    return {
        "ok": ended and why.startswith(asked) and why.count(" worse by") == bool(case.ends),
        "why": why,
        "requests": sum(each["requests"] for each in since.values()),
        "decisions": {role: each["decisions"] for role, each in since.items()},
        "seconds": round(time.monotonic() - began, 1),
    }


@contextmanager
def _clients(serving: Serving, home: Path) -> Iterator[None]:
    """Four that ask one after the other, through the proxy, while the block runs."""
    stop = home / f"stop-{time.monotonic_ns()}"
    plan = Load(f"{serving.addresses.proxy}/predict", BODIES, 4, LONGEST_S, timeout_s=30, stop=stop, spin_s=0)
    with load.process() as pool:
        running = pool.submit(load.run, plan)
        try:
            yield
        finally:
            stop.touch()
            running.result()
