"""Judges the best candidate against the champion on the same holdout rows, and writes the gate's report.

The holdout is derived again from `as_of`, the same way the training derived it; nothing but a run id is handed over.
The challenger is started in the real server process too and gets ready there while it is scored here. The policy is
read first: a file that cannot be run should not cost an evaluation.
"""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from include.data.core.lineage import PARTS
from include.data.core.snapshots import Split, split
from include.data.dataset import Dataset, Rows, list_columns
from include.data.wiring import open_snapshot_store
from include.gate import curves, evidence, gate_page, infra_validation, policy_rego
from include.gate.core import gate
from include.gate.core.gate import GateReport, InfraMeasured, Scores, Verdict
from include.gate.policy_rego import RegoPolicy
from include.gate.spec import GateManifest
from include.kernel.code_digest import JUDGING, digest_code
from include.kernel.environment import ROOT
from include.kernel.job import JobRequest, JobResult
from include.model import artifact
from include.model.artifact import Model
from include.registry.mlflow_registry import CURVES, GATE_REPORT, SERVING, MlflowRegistry
from include.registry.wiring import open_registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """Both models, and the challenger's digest."""

    run_id: str
    challenger: Model
    digest: str
    champion: Model | None
    champion_version: str | None


def run(request: JobRequest, manifest: GateManifest) -> JobResult:
    """Params: `run_id` of the challenger. Verdict `yes` only when the gate passed; inconclusive is a no."""
    policy = _policy(manifest)
    registry, run_id = open_registry(manifest.name), str(request.params["run_id"])
    data = Dataset(open_snapshot_store(), manifest)
    days = split(data.store.history(), request.as_of, manifest.label, manifest.train)
    with tempfile.TemporaryDirectory() as scratch:
        place = _download(registry, run_id, Path(scratch))
        with _served(place, manifest) as server:
            judged = _judged(registry, run_id, place)
            rows = data.read_part(days, "holdout", list_columns(manifest))
            scores = Scores(rows.truth, _predict(judged.challenger, rows), _predict_maybe(judged.champion, rows))
            known = _evidence(registry, judged, manifest, data, days, rows)
            known = replace(known, infra=_measured(server, judged, manifest))
    report = _asked(gate.judge(scores, manifest.gate, known), policy, judged)
    document = _document(report, scores, known, judged, manifest) | {"policy": _named(policy), "data": _days(days)}
    drawing = curves.draw(scores, manifest.gate.threshold)
    _publish(registry, run_id, document, {"gate.html": gate_page.page(document, drawing), CURVES: drawing})
    _tell(report)
    return JobResult(
        job="evaluate",
        run_key=request.run_key,
        verdict="yes" if report.verdict is Verdict.PASSED else "no",
        summary=report.sentence,
        outputs={"gate": document, "digest": judged.digest, "run_id": run_id, "snapshots": list(days.ids)}
        | {"manifest": manifest.digest, "code": digest_code(*JUDGING)},
    )


def _policy(manifest: GateManifest) -> RegoPolicy | None:
    """Tried on an empty report, so that a file that cannot be run is found before anything is measured."""
    if manifest.gate.policy is None:
        return None
    policy = policy_rego.read(ROOT / manifest.gate.policy)
    policy.denials({})
    return policy


def _named(policy: RegoPolicy | None) -> dict[str, str] | None:
    return {"file": policy.name, "sha256": policy.digest} if policy else None


def _asked(report: GateReport, policy: RegoPolicy | None, judged: Judged) -> GateReport:
    """What the policy sees is what gate.json would say without it."""
    if policy is None:
        return report
    seen = {**report.as_dict(), "champion_version": judged.champion_version, "run_id": judged.run_id}
    return report.denied(policy.denials(seen), policy.name)


def _served(place: Path, manifest: GateManifest) -> AbstractContextManager[infra_validation.Server | None]:
    return infra_validation.server(place, artifact.digest(place)) if manifest.gate.infra else nullcontext()


def _measured(server: infra_validation.Server | None, judged: Judged, manifest: GateManifest) -> InfraMeasured | None:
    if server is None:
        return None
    explain = manifest.gate.infra is not None and manifest.gate.infra.explain
    return replace(
        server.measure(manifest.serving.ready_timeout_s, explain), tolerance=judged.challenger.meta.tolerance
    )


def _judged(registry: MlflowRegistry, run_id: str, place: Path) -> Judged:
    version = registry.champion()
    champion = _champion(registry, version, place.parent)
    return Judged(run_id, artifact.load(place), artifact.digest(place), champion, version)


def _download(registry: MlflowRegistry, run_id: str, scratch: Path) -> Path:
    with registry.client() as client:
        return Path(client.download_artifacts(run_id, SERVING, str(scratch)))


def _champion(registry: MlflowRegistry, version: str | None, scratch: Path) -> Model | None:
    if version is None:
        return None
    place = scratch / "champion"
    place.mkdir()
    return artifact.load(registry.fetch(version, place))


def _predict(model: Model, rows: Rows) -> Any:
    return model.predict_frame(rows.inputs[[column.name for column in model.meta.columns]])


def _predict_maybe(model: Model | None, rows: Rows) -> Any:
    return None if model is None else _predict(model, rows)


def _evidence(
    registry: MlflowRegistry, judged: Judged, manifest: GateManifest, data: Dataset, days: Split, rows: Rows
) -> gate.Evidence:
    training = data.read_part(days, "train", list_columns(manifest))
    with registry.client() as client:
        logged = dict(client.get_run(judged.run_id).data.metrics)
    asked = {column.name: column.kind for column in judged.challenger.meta.columns}
    known = Scores(training.truth, _predict(judged.challenger, training))
    return gate.Evidence(
        training=known,
        folds=evidence.folds(logged),
        groups=evidence.groups(rows.inputs, manifest.groups, manifest.groups.columns),
        protected=evidence.groups(rows.inputs, manifest.groups, manifest.groups.protected),
        features=evidence.features(rows.inputs[list(asked)], training.inputs, training.truth),
        schema=({name: spec.kind for name, spec in manifest.contract.columns.items()}, asked),
    )


def _document(
    report: GateReport, scores: Scores, known: gate.Evidence, judged: Judged, manifest: GateManifest
) -> dict[str, Any]:
    """gate.json: the report, the metrics with their intervals, and the slices."""
    models = {"challenger": scores.challenger, "champion": scores.champion}
    seen = {name: score for name, score in models.items() if score is not None}
    return {
        **report.as_dict(),
        "metrics": {name: gate.metrics(scores.truth, score, manifest.gate) for name, score in seen.items()},
        "intervals": {name: gate.intervals(scores.truth, score, manifest.gate) for name, score in seen.items()},
        "slices": gate.by_slice(scores, known.groups or {}, manifest.gate),
        "folds": list(known.folds or ()),
        "champion_version": judged.champion_version,
        "run_id": judged.run_id,
    }


def _days(days: Split) -> dict[str, dict[str, Any]]:
    """Which days each part of the split is made of, and how many rows they hold."""
    parts = {name: days.part(name) for name in PARTS}
    return {
        name: {
            "first": str(found[0].day),
            "last": str(found[-1].day),
            "rows": sum(snapshot.rows for snapshot in found),
            "snapshots": [snapshot.id for snapshot in found],
        }
        for name, found in parts.items()
        if found
    }


def _publish(registry: MlflowRegistry, run_id: str, document: dict[str, Any], pages: dict[str, str]) -> None:
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    found = [
        Metric(f"holdout_{name}{end}", value, now, 0)
        for name, values in document["intervals"]["challenger"].items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    ]
    with registry.client() as client:
        client.log_dict(run_id, document, GATE_REPORT)
        for name, text in pages.items():
            client.log_text(run_id, text, name)
        client.log_batch(run_id, metrics=found, tags=[RunTag("evergreen.gate", document["verdict"])])


def _tell(report: GateReport) -> None:
    for check in report.checks:
        told = f"{check.verdict.value} (warns)" if check.warns else check.verdict.value
        log.info("%-22s %-20s %s", check.name, told, check.reason)
