"""Judges the best candidate against the champion on the same holdout rows, and writes the gate's report.

The holdout is derived again from `as_of`, the same way the training derived it; nothing but a run id is handed over.
The challenger is started in the real server process too and gets ready there while it is scored here. The policy is
read first: a file that cannot be run should not cost an evaluation.
"""

import logging
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from include.data.core.lineage import PARTS
from include.data.core.snapshots import Split, split
from include.data.dataset import Dataset, LabelledRows, list_columns
from include.data.wiring import open_snapshot_store
from include.gate import curves, evidence, gate_page, infra_validation, policy_rego
from include.gate.core import gate
from include.gate.core.gate import GateReport, InfraMeasurement, Scores, Verdict
from include.gate.policy_rego import RegoPolicy
from include.gate.spec import GateManifest
from include.kernel.code_digest import JUDGING, compute_code_digest
from include.kernel.environment import ROOT
from include.kernel.job import JobRequest, JobResult
from include.model import artifact
from include.model.artifact import Model
from include.registry.mlflow_registry import CURVES, GATE_REPORT, SERVING, MlflowRegistry
from include.registry.wiring import open_registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelPair:
    """Both models, and the challenger's digest."""

    run_id: str
    challenger: Model
    digest: str
    champion: Model | None
    champion_version: str | None


def run(request: JobRequest, manifest: GateManifest) -> JobResult:
    """Params: `run_id` of the challenger. Verdict `yes` only when the gate passed; inconclusive is a no."""
    policy = _read_policy(manifest)
    registry, run_id = open_registry(manifest.name), str(request.params["run_id"])
    data = Dataset(open_snapshot_store(), manifest)
    days = split(data.store.read_history(), request.as_of, manifest.label, manifest.train)
    with tempfile.TemporaryDirectory() as scratch:
        directory = _download(registry, run_id, Path(scratch))
        with _run_server(directory, manifest) as server:
            pair = _load_models(registry, run_id, directory)
            rows = data.read_part(days, "holdout", list_columns(manifest))
            scores = Scores(rows.truth, _predict(pair.challenger, rows), _predict_if_any(pair.champion, rows))
            measured_evidence = _collect_evidence(registry, pair, manifest, data, days, rows)
            measured_evidence = replace(measured_evidence, infra=_measure_infra(server, pair, manifest))
    report = _apply_policy(gate.judge(scores, manifest.gate, measured_evidence), policy, pair)
    document = _build_document(report, scores, measured_evidence, pair, manifest) | {
        "policy": _describe_policy(policy),
        "data": _describe_days(days),
    }
    drawing = curves.draw(scores, manifest.gate.threshold)
    _publish(registry, run_id, document, {"gate.html": gate_page.render_gate_page(document, drawing), CURVES: drawing})
    _log_checks(report)
    return JobResult(
        job="evaluate",
        run_key=request.run_key,
        verdict="yes" if report.verdict is Verdict.PASSED else "no",
        summary=report.sentence,
        outputs={"gate": document, "digest": pair.digest, "run_id": run_id, "snapshots": list(days.ids)}
        | {"manifest": manifest.digest, "code": compute_code_digest(*JUDGING)},
    )


def _read_policy(manifest: GateManifest) -> RegoPolicy | None:
    """Tried on an empty report, so that a file that cannot be run is found before anything is measured."""
    if manifest.gate.policy is None:
        return None
    policy = policy_rego.read(ROOT / manifest.gate.policy)
    policy.list_denials({})
    return policy


def _describe_policy(policy: RegoPolicy | None) -> dict[str, str] | None:
    return {"file": policy.name, "sha256": policy.digest} if policy else None


def _apply_policy(report: GateReport, policy: RegoPolicy | None, pair: ModelPair) -> GateReport:
    """What the policy sees is what gate.json would say without it."""
    if policy is None:
        return report
    policy_input = {**report.convert_to_dict(), "champion_version": pair.champion_version, "run_id": pair.run_id}
    return report.add_denials(policy.list_denials(policy_input), policy.name)


def _run_server(
    directory: Path, manifest: GateManifest
) -> AbstractContextManager[infra_validation.ValidationServer | None]:
    return (
        infra_validation.run_server(directory, artifact.compute_digest(directory))
        if manifest.gate.infra
        else nullcontext()
    )


def _measure_infra(
    server: infra_validation.ValidationServer | None, pair: ModelPair, manifest: GateManifest
) -> InfraMeasurement | None:
    if server is None:
        return None
    explain = manifest.gate.infra is not None and manifest.gate.infra.explain
    return replace(server.measure(manifest.serving.ready_timeout_s, explain), tolerance=pair.challenger.meta.tolerance)


def _load_models(registry: MlflowRegistry, run_id: str, directory: Path) -> ModelPair:
    version = registry.find_champion()
    champion = _load_champion(registry, version, directory.parent)
    return ModelPair(run_id, artifact.load(directory), artifact.compute_digest(directory), champion, version)


def _download(registry: MlflowRegistry, run_id: str, scratch: Path) -> Path:
    with registry.open_client() as client:
        return Path(client.download_artifacts(run_id, SERVING, str(scratch)))


def _load_champion(registry: MlflowRegistry, version: str | None, scratch: Path) -> Model | None:
    if version is None:
        return None
    directory = scratch / "champion"
    directory.mkdir()
    return artifact.load(registry.fetch(version, directory))


def _predict(model: Model, rows: LabelledRows) -> Any:
    return model.predict_frame(rows.inputs[[column.name for column in model.meta.columns]])


def _predict_if_any(model: Model | None, rows: LabelledRows) -> Any:
    return None if model is None else _predict(model, rows)


def _collect_evidence(
    registry: MlflowRegistry, pair: ModelPair, manifest: GateManifest, data: Dataset, days: Split, rows: LabelledRows
) -> gate.Evidence:
    training = data.read_part(days, "train", list_columns(manifest))
    with registry.open_client() as client:
        logged = dict(client.get_run(pair.run_id).data.metrics)
    requested = {column.name: column.kind for column in pair.challenger.meta.columns}
    training_scores = Scores(training.truth, _predict(pair.challenger, training))
    return gate.Evidence(
        training=training_scores,
        folds=evidence.read_fold_aucs(logged),
        groups=evidence.assign_groups(rows.inputs, manifest.groups, manifest.groups.columns),
        protected=evidence.assign_groups(rows.inputs, manifest.groups, manifest.groups.protected),
        features=evidence.encode_features(rows.inputs[list(requested)], training.inputs, training.truth),
        schema=({name: spec.kind for name, spec in manifest.contract.columns.items()}, requested),
    )


def _build_document(
    report: GateReport, scores: Scores, measured_evidence: gate.Evidence, pair: ModelPair, manifest: GateManifest
) -> dict[str, Any]:
    """gate.json: the report, the metrics with their intervals, and the slices."""
    models = {"challenger": scores.challenger, "champion": scores.champion}
    scores_by_model = {name: score for name, score in models.items() if score is not None}
    return {
        **report.convert_to_dict(),
        "metrics": {
            name: gate.compute_metrics(scores.truth, score, manifest.gate) for name, score in scores_by_model.items()
        },
        "intervals": {
            name: gate.estimate_intervals(scores.truth, score, manifest.gate) for name, score in scores_by_model.items()
        },
        "slices": gate.measure_slices(scores, measured_evidence.groups or {}, manifest.gate),
        "folds": list(measured_evidence.folds or ()),
        "champion_version": pair.champion_version,
        "run_id": pair.run_id,
    }


def _describe_days(days: Split) -> dict[str, dict[str, Any]]:
    """Which days each part of the split is made of, and how many rows they hold."""
    parts = {name: days.get_part(name) for name in PARTS}
    return {
        name: {
            "first": str(snapshots[0].day),
            "last": str(snapshots[-1].day),
            "rows": sum(snapshot.rows for snapshot in snapshots),
            "snapshots": [snapshot.id for snapshot in snapshots],
        }
        for name, snapshots in parts.items()
        if snapshots
    }


def _publish(registry: MlflowRegistry, run_id: str, document: dict[str, Any], pages: dict[str, str]) -> None:
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    measurements = [
        Metric(f"holdout_{name}{end}", value, now, 0)
        for name, values in document["intervals"]["challenger"].items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    ]
    with registry.open_client() as client:
        client.log_dict(run_id, document, GATE_REPORT)
        for name, text in pages.items():
            client.log_text(run_id, text, name)
        client.log_batch(run_id, metrics=measurements, tags=[RunTag("evergreen.gate", document["verdict"])])


def _log_checks(report: GateReport) -> None:
    for check in report.checks:
        outcome = f"{check.verdict.value} (warns)" if check.warns else check.verdict.value
        log.info("%-22s %-20s %s", check.name, outcome, check.reason)
