"""One fold of a walk-forward backtest: a training of the past, judged by the days that followed it.

It trains with the `train` job itself, historically, under a key made of data, manifest and code: a fold made again, and
the next fold that wants the same model to compare with, find the training done. No version is registered and nothing is
blessed, so there is nothing that could be deployed.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include.data.core.snapshots import Snapshot, Split, split
from include.data.dataset import Dataset, Rows, list_columns
from include.data.wiring import open_snapshot_store
from include.gate.core.gate import metrics
from include.kernel.code_digest import BACKTESTING, digest_code
from include.kernel.errors import NotEnoughData, RequestInvalid
from include.kernel.inference import statistics as st
from include.kernel.job import Intent, JobRequest, JobResult, run_key
from include.model import artifact
from include.model.artifact import Model
from include.registry.wiring import open_registry
from include.training.backtest_page import page
from include.training.backtest_store import LocalBacktests
from include.training.core.backtest import Fold, Following, Judged, Measured, following
from include.training.jobs import train
from include.training.spec import TrainingManifest
from include.training.wiring import open_backtest_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Past:
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
    store, kept = open_snapshot_store(), open_backtest_store(manifest.digest)
    history, data = store.history(), Dataset(store, manifest)
    try:
        after = following(history, request.as_of, manifest.label, manifest.backtest.follow_days)
        rows = _judging_rows(data, manifest, after)
        past = _trained(history, request.as_of, manifest, kept)
    except NotEnoughData as error:
        return JobResult(job="backtest", run_key=request.run_key, verdict="no", summary=str(error))
    fold = _fold(data, manifest, past, _before(history, request.as_of, manifest, kept), after, rows)
    changed = kept.write(fold, page)
    log.info("%s", "a new fold" if changed else "the same fold as before, nothing rewritten")
    outputs = {"fold": fold.model_dump(mode="json"), "page": str(kept.page), "url": past.url, "changed": changed}
    return JobResult(job="backtest", run_key=request.run_key, summary=fold.sentence, outputs=outputs)


def _judging_rows(data: Dataset, manifest: TrainingManifest, after: Following) -> Rows:
    rows, least = data.read(after.days, list_columns(manifest)), manifest.gate.min_rows
    if len(rows.truth) < least or len(np.unique(rows.truth)) < 2:
        raise NotEnoughData(
            f"The {len(after.days)} days from {after.days[0].day} on hold {len(rows.truth)} rows, "
            f"{int(rows.truth.sum())} of them positive; judging asks for {least} rows (gate.min_rows) of both classes."
        )
    return rows


def _before(history: list[Snapshot], as_of: date, manifest: TrainingManifest, kept: LocalBacktests) -> Past | None:
    try:
        return _trained(history, as_of - timedelta(days=manifest.backtest.follow_days), manifest, kept)
    except NotEnoughData:
        return None


def _trained(history: list[Snapshot], as_of: date, manifest: TrainingManifest, kept: LocalBacktests) -> Past:
    days = split(history, as_of, manifest.label, manifest.train)
    key = run_key("backtest", str(as_of), manifest.digest, digest_code(*BACKTESTING), *days.ids)
    reason = {"reason": "walk-forward backtest"}
    request = JobRequest(job="train", run_key=key, as_of=as_of, intent=Intent.HISTORICAL, params=reason)
    with kept.one_training(key):
        told = train.run(request, manifest).outputs
    with tempfile.TemporaryDirectory() as scratch:
        place = open_registry(manifest.name).fetch_run(told["run_id"], Path(scratch))
        return Past(as_of, told["best"], artifact.digest(place), artifact.load(place), days, told["url"])


def _fold(
    data: Dataset, manifest: TrainingManifest, past: Past, before: Past | None, after: Following, rows: Rows
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
        model=_judged(manifest, past, rows),
        before=_judged(manifest, before, rows) if before else None,
        saved=_measured(st.paired_mean(_cost(manifest, before, rows) - _cost(manifest, past, rows), _sure(manifest)))
        if before
        else None,
        manifest=manifest.digest,
        code=digest_code(*BACKTESTING),
    )


def _judged(manifest: TrainingManifest, past: Past, rows: Rows) -> Judged:
    scores = _scores(past, rows)
    log.info("model as of %s (%s): %s", past.as_of, past.candidate, metrics(rows.truth, scores, manifest.gate))
    return Judged(
        as_of=past.as_of,
        candidate=past.candidate,
        digest=past.digest,
        auc=_measured(st.auc_interval(rows.truth, scores, _sure(manifest))),
        cost=_measured(st.paired_mean(_cost(manifest, past, rows), _sure(manifest))),
    )


def _scores(past: Past, rows: Rows) -> st.Floats:
    return past.model.predict_frame(rows.inputs[[column.name for column in past.model.meta.columns]])


def _cost(manifest: TrainingManifest, past: Past, rows: Rows) -> st.Floats:
    """Cost per row, shape (n,)."""
    spec = manifest.gate
    return st.cost(rows.truth, _scores(past, rows), spec.threshold, spec.cost.false_approval, spec.cost.false_denial)


def _sure(manifest: TrainingManifest) -> float:
    return manifest.gate.confidence


def _measured(found: st.Interval) -> Measured:
    return Measured(value=found.value, low=found.low, high=found.high)
