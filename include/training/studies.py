"""The studies of a training: each one a work unit, made by whoever comes to it first.

A study that is under way is a journal on the disk of the machine that makes it (include.training.tuning), so a killed
one goes on there; anywhere else it begins anew. A finished study is a work unit in the store, and its journal goes.
"""

from pathlib import Path

from include.kernel import work_units
from include.kernel.work_units import Shard, WorkUnit
from include.training import fitting
from include.training.core import search
from include.training.core.search import Study
from include.training.fitting import TunedParams
from include.training.spec import TrainingManifest
from include.training.training_plan import Training

KIND = "tuning"


def list_studies(manifest: TrainingManifest) -> list[tuple[str, Shard]]:
    """Every study of a training: those of each candidate that has something to search."""
    kinds = [kind for kind in manifest.train.candidates if manifest.train.tuning.space.get(kind)]
    return [(kind, shard) for kind in kinds for shard in work_units.list_shards(manifest.studies)]


def choose_params(training: Training, kind: str) -> TunedParams:
    """The parameters of the manifest, or better ones, and the trials that led there."""
    fixed = dict(training.manifest.train.candidates[kind])
    studies = [
        complete_study(training, kind, shard) for other, shard in list_studies(training.manifest) if other == kind
    ]
    best = search.choose_best(studies)
    return TunedParams(fixed) if best is None else TunedParams({**fixed, **best}, search.list_trials(studies))


def complete_study(training: Training, kind: str, shard: Shard) -> Study:
    """The finished study, read or made."""
    journal = _locate_journal(training, kind, shard)

    def run_search() -> bytes:
        return search.dump_study(fitting.search_params(kind, training.manifest, training.rows, journal, shard))

    completed = search.load_study(training.units.get_or_make(_build_work_unit(training, kind, shard), run_search))
    for file in (journal, journal.with_suffix(".lock")):  # the work unit holds the trials now
        file.unlink(missing_ok=True)
    return completed


def _build_work_unit(training: Training, kind: str, shard: Shard) -> WorkUnit:
    return work_units.build_work_unit(KIND, training.request.as_of, training.key, kind, str(shard))


def _locate_journal(training: Training, kind: str, shard: Shard) -> Path:
    return training.journals / f"{training.key}-{kind}-{shard.index}-{shard.count}.journal"
