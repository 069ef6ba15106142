"""A search over parameters, decided: how its trials are dealt to studies, and what the studies together come to.

One study is a chain: each trial is chosen by what the trials before it found. To search on several machines at once
the trials are dealt to studies that know nothing of each other, so what is found depends on their number alone, and
not on which of them was quicker. The price: a study learns from its own trials only, so many short ones are close to
a random search. Studies that share one store of trials would learn from all, and end differently every time.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from include.kernel.work_units import Shard

RANDOM_TRIALS = 8  # of a whole search, before the sampler trusts what it has seen
Params = dict[str, Any]


class Trial(BaseModel):
    """`loss` is the mean over the folds; of a trial that was pruned, over those it got to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["complete", "pruned"]
    loss: float | None
    params: Params


Study = tuple[Trial, ...]
_study_adapter = TypeAdapter(Study)


def count_trials(trials: int, shard: Shard) -> int:
    """Trials of one study: as even as can be, and `trials` together."""
    return len(shard.select_share(range(trials)))


def count_random_trials(shard: Shard) -> int:
    """Trials of one study that are drawn by chance, so that all studies together draw about `RANDOM_TRIALS`."""
    return -(-RANDOM_TRIALS // shard.count)


def derive_seed(base: int, shard: Shard, number: int) -> int:
    """That of one trial, below 2**32: by it a study that was interrupted goes on as if it had not been."""
    return (base * 10_007 + shard.index * 1_000_003 + number) % 2**32


def choose_best(studies: Sequence[Study]) -> Params | None:
    """What was searched, at the lowest loss; of equals, that of the first trial of the first study. None: no loss."""
    complete = [trial for study in studies for trial in study if trial.state == "complete" and trial.loss is not None]
    return min(complete, key=lambda trial: trial.loss or 0.0).params if complete else None


def list_trials(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Every trial, for a table; which study it is of where there are several."""
    several = len(studies) > 1
    return [
        ({"study": number} if several else {}) | {"state": trial.state, "loss": trial.loss, **trial.params}
        for number, study in enumerate(studies)
        for trial in study
    ]


def dump_study(study: Study) -> bytes:
    return _study_adapter.dump_json(study)


def load_study(content: bytes) -> Study:
    """What `dump` wrote: every number to the last bit."""
    return _study_adapter.validate_json(content)
