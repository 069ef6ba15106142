"""One fold of a walk-forward backtest: a training of the past, judged by the days that followed it.

It trains with the `train` job itself, historically, under a key made of data, manifest and code: a fold made again, and
the next fold that wants the same model to compare with, find the training done. No version is registered and nothing is
blessed, so there is nothing that could be deployed.
"""

import logging
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include.data.core.snapshots import Snapshot, Split, split
from include.data.dataset import Dataset, LabelledRows, list_columns
from include.data.wiring import open_snapshot_store
from include.gate.core.gate import compute_metrics
from include.kernel.code_digest import BACKTESTING, compute_code_digest
from include.kernel.errors import NotEnoughData, RequestInvalid
from include.kernel.inference import statistics as st
from include.kernel.job import Intent, JobRequest, JobResult, build_run_key
from include.model import artifact
from include.model.artifact import Model
from include.registry.wiring import open_registry
from include.training.backtest_page import render_backtest_page
from include.training.backtest_store import LocalBacktests
from include.training.core.backtest import Estimate, Fold, JudgingDays, ModelEvaluation, find_judging_days
from include.training.jobs import train
from include.training.spec import TrainingManifest
from include.training.wiring import open_backtest_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PastModel:
    """A model as a training of `as_of` made it."""

    as_of: date
    candidate: str
    digest: str
    model: Model
    days: Split
    url: str


def run(request: JobRequest, manifest: TrainingManifest) -> JobResult:
    """Verdict `no` when too little was known, before or after. Raises `RequestInvalid` for a live run."""
    if request.intent is Intent.LIVE:
        raise RequestInvalid("A backtest looks at the past: start it by a backfill of retrain, or with another intent.")
    store, backtests = open_snapshot_store(), open_backtest_store(manifest.digest)
    history, data = store.read_history(), Dataset(store, manifest)
    try:
        after = find_judging_days(history, request.as_of, manifest.label, manifest.backtest.follow_days)
        rows = _read_judging_rows(data, manifest, after)
        past = _train_past(history, request.as_of, manifest, backtests)
    except NotEnoughData as error:
        return JobResult(job="backtest", run_key=request.run_key, verdict="no", summary=str(error))
    fold = _build_fold(data, manifest, past, _train_previous(history, request.as_of, manifest, backtests), after, rows)
    changed = backtests.write(fold, render_backtest_page)
    log.info("%s", "a new fold" if changed else "the same fold as before, nothing rewritten")
    outputs = {"fold": fold.model_dump(mode="json"), "page": str(backtests.page), "url": past.url, "changed": changed}
    return JobResult(job="backtest", run_key=request.run_key, summary=fold.sentence, outputs=outputs)


def _read_judging_rows(data: Dataset, manifest: TrainingManifest, after: JudgingDays) -> LabelledRows:
    rows, least = data.read(after.days, list_columns(manifest)), manifest.gate.min_rows
    if len(rows.truth) < least or len(np.unique(rows.truth)) < 2:
        raise NotEnoughData(
            f"The {len(after.days)} days from {after.days[0].day} on hold {len(rows.truth)} rows, "
            f"{int(rows.truth.sum())} of them positive; judging asks for {least} rows (gate.min_rows) of both classes."
        )
    return rows


def _train_previous(
    history: list[Snapshot], as_of: date, manifest: TrainingManifest, backtests: LocalBacktests
) -> PastModel | None:
    try:
        return _train_past(history, as_of - timedelta(days=manifest.backtest.follow_days), manifest, backtests)
    except NotEnoughData:
        return None


def _train_past(
    history: list[Snapshot], as_of: date, manifest: TrainingManifest, backtests: LocalBacktests
) -> PastModel:
    days = split(history, as_of, manifest.label, manifest.train)
    key = build_run_key("backtest", str(as_of), manifest.digest, compute_code_digest(*BACKTESTING), *days.ids)
    reason = {"reason": "walk-forward backtest"}
    request = JobRequest(job="train", run_key=key, as_of=as_of, intent=Intent.HISTORICAL, params=reason)
    with backtests.lock_training(key):
        outputs = train.run(request, manifest).outputs
    with tempfile.TemporaryDirectory() as scratch:
        directory = open_registry(manifest.name).fetch_run(outputs["run_id"], Path(scratch))
        return PastModel(
            as_of, outputs["best"], artifact.compute_digest(directory), artifact.load(directory), days, outputs["url"]
        )


def _build_fold(
    data: Dataset,
    manifest: TrainingManifest,
    past: PastModel,
    before: PastModel | None,
    after: JudgingDays,
    rows: LabelledRows,
) -> Fold:
    trained = data.read_part(past.days, "train", list_columns(manifest))
    return Fold(
        as_of=past.as_of,
        first=after.days[0].day,
        last=after.days[-1].day,
        rows=len(rows.truth),
        positives=int(rows.truth.sum()),
        trained_rows=len(trained.truth),
        trained_on=tuple(day.id for day in (*past.days.train, *past.days.calibration)),
        judged_by=tuple(day.id for day in after.days),
        model=_judge_model(manifest, past, rows),
        before=_judge_model(manifest, before, rows) if before else None,
        saved=_build_estimate(
            st.estimate_paired_mean(
                _compute_costs(manifest, before, rows) - _compute_costs(manifest, past, rows), _get_confidence(manifest)
            )
        )
        if before
        else None,
        manifest=manifest.digest,
        code=compute_code_digest(*BACKTESTING),
    )


def _judge_model(manifest: TrainingManifest, past: PastModel, rows: LabelledRows) -> ModelEvaluation:
    scores = _predict_scores(past, rows)
    log.info("model as of %s (%s): %s", past.as_of, past.candidate, compute_metrics(rows.truth, scores, manifest.gate))
    return ModelEvaluation(
        as_of=past.as_of,
        candidate=past.candidate,
        digest=past.digest,
        auc=_build_estimate(st.estimate_auc(rows.truth, scores, _get_confidence(manifest))),
        cost=_build_estimate(st.estimate_paired_mean(_compute_costs(manifest, past, rows), _get_confidence(manifest))),
    )


def _predict_scores(past: PastModel, rows: LabelledRows) -> st.Floats:
    return past.model.predict_frame(rows.inputs[[column.name for column in past.model.meta.columns]])


def _compute_costs(manifest: TrainingManifest, past: PastModel, rows: LabelledRows) -> st.Floats:
    """Cost per row, shape (n,)."""
    spec = manifest.gate
    return st.compute_decision_costs(
        rows.truth, _predict_scores(past, rows), spec.threshold, spec.cost.false_approval, spec.cost.false_denial
    )


def _get_confidence(manifest: TrainingManifest) -> float:
    return manifest.gate.confidence


def _build_estimate(interval: st.Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high)
