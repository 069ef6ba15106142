"""The studies of a training: each one a piece, made by whoever comes to it first.

A study that is under way is a journal on the disk of the machine that makes it (include.training.tuning), so a killed
one goes on there; anywhere else it begins anew. A study that is finished is a piece in the store, and its journal goes.
"""

from __future__ import annotations

from pathlib import Path

from include.kernel import work_units
from include.kernel.work_units import Piece, Shard
from include.training import fitting
from include.training.core import search
from include.training.core.search import Study
from include.training.fitting import Tuned
from include.training.spec import TrainingManifest
from include.training.training_plan import Training

KIND = "tuning"


def work(manifest: TrainingManifest) -> list[tuple[str, Shard]]:
    """Every study of a training: those of each candidate that has something to search."""
    kinds = [kind for kind in manifest.train.candidates if manifest.train.tuning.space.get(kind)]
    return [(kind, shard) for kind in kinds for shard in work_units.shards(manifest.studies)]


def tuned(training: Training, kind: str) -> Tuned:
    """The parameters of the manifest, or better ones, and the trials that led there."""
    fixed = dict(training.manifest.train.candidates[kind])
    found = [study(training, kind, shard) for other, shard in work(training.manifest) if other == kind]
    best = search.best(found)
    return Tuned(fixed) if best is None else Tuned({**fixed, **best}, search.rows(found))


def study(training: Training, kind: str, shard: Shard) -> Study:
    """The finished study, read or made."""
    journal = _journal(training, kind, shard)

    def made() -> bytes:
        return search.dump(fitting.search(kind, training.manifest, training.rows, journal, shard))

    found = search.load(training.units.get(_piece(training, kind, shard), made))
    for file in (journal, journal.with_suffix(".lock")):  # the piece holds the trials now
        file.unlink(missing_ok=True)
    return found


def _piece(training: Training, kind: str, shard: Shard) -> Piece:
    return work_units.piece(KIND, training.request.as_of, training.key, kind, str(shard))


def _journal(training: Training, kind: str, shard: Shard) -> Path:
    return training.journals / f"{training.key}-{kind}-{shard.index}-{shard.of}.journal"
