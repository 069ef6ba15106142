"""A network and a forest of trees go all the way: trained, judged, blessed, released, and asked through the proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import mlflow
import numpy as np
import pytest

from include.data.wiring import open_snapshot_store
from include.jobs.__main__ import run
from include.kernel.job import Intent, JobRequest
from include.manifest import Manifest, read_manifest
from include.registry.wiring import open_registry
from include.release.core.rollout import Release, Step
from include.release.service.driver import ReleaseDriver
from include.training import fitting, model_package
from include.training.wiring import plan_training
from tests import credit
from tests.blessed import document, envelope
from tests.job_world import FIRST, LAST, publish
from tests.served import Serving

CANDIDATES: dict[str, dict[str, Any]] = {
    "torch_mlp": {"max_epochs": 10, "units": 16},
    "random_forest": {"n_estimators": 40},
    "boosting": {"max_iter": 30},
}
TORCH, OTHERS = 1e-5, 1e-6


@pytest.fixture(params=CANDIDATES)
def manifest(
    request: Any, small: Callable[..., Manifest], mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manifest]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    name = f"credit-{request.param.replace('_', '-')}"
    put = small(name=name, **{"train.candidates": {request.param: CANDIDATES[request.param]}})
    for number in range(4):
        publish(open_snapshot_store(), put, FIRST + timedelta(days=number))
    yield put
    mlflow.set_tracking_uri(None)


def asked(job: str, **params: Any) -> JobRequest:
    return JobRequest(job=job, run_key="k", as_of=LAST, intent=Intent.LIVE, params=params)


def blessed(manifest: Manifest) -> tuple[Release, str, str]:
    """What the train DAG does: the version with its digest, the candidate, and the envelope."""
    trained = run(asked("train")).outputs
    judged = run(asked("evaluate", run_id=trained["run_id"]))
    assert judged.verdict == "yes", judged.summary
    registry, digest = open_registry(read_manifest().name), judged.outputs["digest"]
    version = registry.register(trained["run_id"], f"runs:/{trained['run_id']}/model")
    registry.bless(version, envelope(document(model=manifest.name, version=version, digest=digest)))
    assert registry.register(trained["run_id"], f"runs:/{trained['run_id']}/model") == version
    return Release(version, digest), trained["best"], registry.fetch_blessing(version)


def of_the_training(manifest: Manifest, kind: str) -> Any:
    """The same training again: the pipeline itself, in this process."""
    again = plan_training(asked("train"), manifest)
    return model_package._build_servable(again, fitting.fit_candidate(kind, manifest, again.rows, again.later))


def test_it_reaches_production_and_answers_there_as_the_training_does(manifest: Manifest, serving: Serving) -> None:
    release, kind, paper = blessed(manifest)
    wanted = serving.target.request_release(release, by="a test", why="to see", kind="deploy", blessing=paper)
    driver = ReleaseDriver(serving.target, open_registry(manifest.name), manifest, credit.rows()[:10])
    steps = [step for step, _ in driver.run(wanted.generation)]
    assert steps[-1] is Step.DONE and serving.answers_with(release.version)

    described = serving.describe()
    assert (described["path"], described["digest"]) == ("compiled", release.digest)
    assert described["runtime"] == ("treelite" if kind == "boosting" else "onnx")

    expected = of_the_training(manifest, kind).predict_proba(credit.rows())
    found, labels = serving.scores(credit.rows())
    assert np.mean(np.abs(found - expected) > (TORCH if kind == "torch_mlp" else OTHERS)) <= 0.001
    assert labels == ["bad" if probability >= manifest.gate.threshold else "good" for probability in expected]
