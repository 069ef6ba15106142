"""Judges the best candidate against the champion on the same holdout rows, and writes the gate's report.

The holdout is derived again from `as_of`, the same way the training derived it; nothing but a run id is handed over.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import mlflow

from include.adapters import factory
from include.adapters.registry_mlflow import SERVING, MlflowRegistry
from include.core.gate import Evidence, GateReport, Scores, Verdict, judge, metrics
from include.core.job import JobRequest, JobResult
from include.core.manifest import Manifest
from include.core.snapshots import split
from include.jobs import dataset, infra
from include.model import artifact
from include.model.artifact import ServableModel

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `run_id` of the challenger. Verdict `yes` only when the gate passed; inconclusive is a no."""
    registry, run_id = factory.registry(), str(request.params["run_id"])
    days = split(factory.store().history(), request.as_of, manifest.label, manifest.train)
    champion_version = registry.champion()
    with tempfile.TemporaryDirectory() as scratch:
        challenger, digest = _of_run(registry, run_id, Path(scratch))
        champion = _champion(registry, champion_version, Path(scratch))
        measured = infra.measure(Path(scratch) / SERVING, digest, manifest)
    rows = dataset.part(manifest, days, "holdout", dataset.columns(manifest))
    scores = Scores(
        rows.truth,
        challenger.predict_frame(rows.inputs[[c.name for c in challenger.meta.columns]]),
        champion.predict_frame(rows.inputs[[c.name for c in champion.meta.columns]]) if champion else None,
    )
    report = judge(scores, manifest.gate, Evidence(infra=measured))
    found = {"challenger": metrics(scores.truth, scores.challenger, manifest.gate)}
    if scores.champion is not None:
        found["champion"] = metrics(scores.truth, scores.champion, manifest.gate)
    document = {**report.as_dict(), "metrics": found, "champion_version": champion_version, "run_id": run_id}
    _publish(registry, run_id, document)
    _tell(report)
    return JobResult(
        job="evaluate",
        run_key=request.run_key,
        verdict="yes" if report.verdict is Verdict.PASSED else "no",
        summary=report.sentence,
        outputs={"gate": document, "digest": digest, "run_id": run_id, "snapshots": list(days.ids)},
    )


def _of_run(registry: MlflowRegistry, run_id: str, scratch: Path) -> tuple[ServableModel, str]:
    with registry.client() as client:
        place = Path(client.download_artifacts(run_id, SERVING, str(scratch)))
    return artifact.load(place), artifact.digest(place)


def _champion(registry: MlflowRegistry, version: str | None, scratch: Path) -> ServableModel | None:
    if version is None:
        return None
    place = scratch / "champion"
    place.mkdir()
    return artifact.load(registry.fetch(version, place))


def _publish(registry: MlflowRegistry, run_id: str, document: dict[str, Any]) -> None:
    flat = {f"holdout_{name}": value for name, value in document["metrics"]["challenger"].items()}
    with registry.client() as client:
        mlflow.set_tracking_uri(registry.uri)
        client.log_dict(run_id, document, "gate.json")
        for name, value in flat.items():
            client.log_metric(run_id, name, value)
        client.set_tag(run_id, "evergreen.gate", document["verdict"])


def _tell(report: GateReport) -> None:
    for check in report.checks:
        log.info("%-20s %-12s %s", check.name, check.verdict.value, check.reason)
