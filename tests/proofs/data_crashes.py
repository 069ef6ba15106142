"""Two publishers at once, and kill -9: before each write Python makes, and by the clock, for native code writes too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

from tests.proofs.data_proof import Proof
from tests.proofs.delivery import DAY, ROOT, Pipeline, rows_of
from tests.proofs.outcomes import Named, must

KILLING = Path(__file__).parent / "killing"
CLOCK_KILLS = 12
PUBLISHER_ROUNDS = 3


def two_publishers(proof: Proof, same: bool) -> None:
    for _ in range(PUBLISHER_ROUNDS):
        first, second = proof.pipeline(), proof.pipeline()
        second.store = first.store
        first.deliver(rows_of())
        second.deliver(rows_of(seed=1 if same else 2))
        both_publish(first, second)


def both_publish(first: Pipeline, second: Pipeline) -> None:
    """At once: both end well, and the day's history holds what each of them brought, once."""
    pipelines = (first, second)
    started = [each.start(as_of=DAY + timedelta(days=2)) for each in pipelines]
    ended = [each.ended(process) for each, process in zip(pipelines, started, strict=True)]
    must([each.exit for each in ended] == [0, 0], " ".join(each.log[-300:] for each in ended))
    versions = [each.id for each in first.snapshots() if each.day == DAY]
    wanted = {each.outputs["id"] for each in ended}
    must(len(versions) == len(wanted) and set(versions) == wanted, f"versions are {versions}")
    must(sum(each.outputs["changed"] for each in ended) == len(wanted), "both or none said they published")
    must(first.leftovers() == [], f"left {first.leftovers()}")


def count_writes(proof: Proof) -> int:
    """Writes Python makes in one undisturbed run."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    must(pipeline.ended(_killable(pipeline, 0)).exit == 0, "the run to count in failed")
    return int((pipeline.home / "kills").read_text().split()[0])


def _killable(pipeline: Pipeline, at: int) -> subprocess.Popen[str]:
    return pipeline.start(
        PYTHONPATH=f"{KILLING}{os.pathsep}{ROOT}",
        KILL_AT=str(at),
        KILL_LOG=str(pipeline.home / "kills"),
        KILL_UNDER=str(pipeline.home),
    )


def killed_before_write(proof: Proof, at: int) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    ended = pipeline.ended(_killable(pipeline, at))
    must(ended.exit == -signal.SIGKILL, f"was not killed but ended with {ended.exit}")
    recovers_from_a_kill(proof, pipeline)


def killed_by_the_clock(proof: Proof, after: float) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    process = pipeline.start()
    time.sleep(after)  # the moment is the point: it is spread over the whole run
    process.kill()
    pipeline.ended(process)
    recovers_from_a_kill(proof, pipeline)


def recovers_from_a_kill(proof: Proof, pipeline: Pipeline) -> None:
    """What counts is whole: the day is published or it is not. The next run leaves what an undisturbed one leaves."""
    found = {each.id for each in pipeline.snapshots() if each.day == DAY}
    must(found <= {proof.good_id}, f"a half-published day: {found}")
    proof.recovers(pipeline)
    names = set(pipeline.published())
    must(names == proof.good_names, f"differs from an undisturbed run: {sorted(names ^ proof.good_names)}")


def of_publishers(proof: Proof) -> list[Named]:
    return [
        ("two publishers of the same rows", partial(two_publishers, proof, True)),
        ("two publishers of different rows", partial(two_publishers, proof, False)),
    ]


def of_kills(proof: Proof) -> list[Named]:
    writes = count_writes(proof)
    proof.figures |= {"kill_points": writes, "clock_kills": CLOCK_KILLS}
    moments = [proof.seconds * (number + 0.5) / CLOCK_KILLS for number in range(CLOCK_KILLS)]
    return [
        *(
            (f"kill -9 before write {at} of {writes}", partial(killed_before_write, proof, at))
            for at in range(1, writes + 1)
        ),
        *((f"kill -9 after {after:.2f} s", partial(killed_by_the_clock, proof, after)) for after in moments),
    ]
