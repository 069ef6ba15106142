"""Searches a candidate's parameters with Optuna, within the manifest's budget of trials and seconds.

A study is a journal file named by the training's key, so an attempt that was killed is taken up where it stopped: what
is finished counts, and the trial that was cut off is struck out. Each trial draws from a seed of its own, made of the
manifest's seed, the study and the number of its finished trials. So a study that was interrupted ends with the same
trials as one that was not, and the same training stays the same model. Only a study that runs out of seconds depends
on the machine. How trials are dealt to several studies is include.training.core.search's.

The first trial of the first study is what the manifest writes: tuning never answers with less than that, measured on
the same folds.
"""

import fcntl
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, Trial, TrialState

from include.kernel.work_units import Shard
from include.training.core import search
from include.training.core.search import Params, Study
from include.training.spec import SearchRange, TuningSpec

log = logging.getLogger(__name__)
FoldLosses = Callable[[Params], Iterator[float]]  # the loss of one fold after the other, computed as it is asked for
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
WHOLE_SEARCH = Shard(0, 1)


def tune(
    kind: str, fixed: Params, spec: TuningSpec, seed: int, journal: Path, folds: FoldLosses, shard: Shard = WHOLE_SEARCH
) -> Study:
    """Every finished trial of one study, in their order; `spec.seconds` are those of each study.

    `fixed` are the manifest's parameters; those in the space are searched, the others stay.
    """
    space, trials = spec.space[kind], search.count_trials(spec.trials, shard)
    name = kind if shard.count == 1 else f"{kind}, study {shard}"
    study = _open_study(journal, spec)
    while (number := len(list_finished(study))) < trials and _count_seconds(study) < spec.seconds:
        study.sampler = _build_sampler(seed, shard, number)
        if number == shard.index == 0:
            study.enqueue_trial({name: fixed[name] for name in space if name in fixed})
        loss = _run_trial(study, fixed, space, folds)
        outcome = "given up" if loss is None else f"{loss:.5f}"
        log.info("%s: trial %d of %d: %s, best so far %s", name, number + 1, trials, outcome, _describe_best(study))
    return tuple(_convert_trial(trial) for trial in list_finished(study))


def _build_sampler(seed: int, shard: Shard, number: int) -> optuna.samplers.TPESampler:
    drawn = search.derive_seed(seed, shard, number)
    return optuna.samplers.TPESampler(seed=drawn, n_startup_trials=search.count_random_trials(shard))


def _run_trial(study: optuna.Study, fixed: Params, space: Mapping[str, SearchRange], folds: FoldLosses) -> float | None:
    trial = study.ask()
    params = {**fixed, **{name: _suggest_value(trial, name, bounds) for name, bounds in space.items()}}
    loss = _measure_loss(trial, folds(params))
    study.tell(trial, loss, state=TrialState.PRUNED if loss is None else TrialState.COMPLETE)
    return loss


def _measure_loss(trial: Trial, folds: Iterator[float]) -> float | None:
    """The mean over the folds, or None when the pruner gave up on the way, or a fold has no number for a loss."""
    losses: list[float] = []
    for number, loss in enumerate(folds):
        if not math.isfinite(loss):
            return None
        losses.append(loss)
        trial.report(float(np.mean(losses)), number)
        if trial.should_prune():
            return None
    return float(np.mean(losses))


def _suggest_value(trial: Trial, name: str, bounds: SearchRange) -> float | int:
    if bounds.whole:
        return trial.suggest_int(name, int(bounds.low), int(bounds.high), log=bounds.log)
    return trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)


def _open_study(journal: Path, spec: TuningSpec) -> optuna.Study:
    """The study in this file, with the trial struck out that a killed attempt left open."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_Lock(journal)))
    pruners = {"median": optuna.pruners.MedianPruner(n_startup_trials=3), "none": optuna.pruners.NopPruner()}
    study = optuna.create_study(
        storage=storage, study_name=journal.stem, pruner=pruners[spec.pruner], load_if_exists=True
    )
    for cut_off in study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
        storage.set_trial_state_values(cut_off._trial_id, TrialState.FAIL)
    if list_finished(study):
        log.info("the study goes on after %d trials of an earlier attempt", len(list_finished(study)))
    return study


def list_finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED_STATES)


def _describe_best(study: optuna.Study) -> str:
    losses = [trial.value for trial in list_finished(study) if trial.state is TrialState.COMPLETE]
    return f"{min(loss for loss in losses if loss is not None):.5f}" if losses else "none"


def _count_seconds(study: optuna.Study) -> float:
    """Seconds of all finished trials, of earlier attempts too."""
    return sum(trial.duration.total_seconds() for trial in list_finished(study) if trial.duration)


def _convert_trial(trial: FrozenTrial) -> search.Trial:
    state: Literal["complete", "pruned"] = "complete" if trial.state is TrialState.COMPLETE else "pruned"
    return search.Trial(state=state, loss=trial.value, params=trial.params)


class _Lock(BaseJournalFileLock):
    """Optuna's own locks are files that a killed process leaves behind; this one ends with its process."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_suffix(".lock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
