"""A disk that is full, or read-only, at every point of publishing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.proofs.data_proof import Proof
from tests.proofs.delivery import Pipeline, rows_of
from tests.proofs.outcomes import Named, must


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def may_mount(home: Path) -> bool:
    try:
        with small_disk(home / "may-mount", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def a_full_disk(proof: Proof, kib: int) -> None:
    """At this size the disk is full somewhere between the first byte that lands and the last that is published."""
    pipeline = Pipeline(proof.home / f"disk-{kib}")
    with small_disk(pipeline.store, kib):
        pipeline.deliver(rows_of(count=400))
        ended = pipeline.ingest()
        if ended.exit == 0:
            proof.figures["disk_enough_kib"] = min(kib, proof.figures.get("disk_enough_kib", kib))
            return
        must((ended.exit, ended.kind) == (75, "StorageUnavailable"), f"{ended.exit} {ended.kind}: {ended.log[-600:]}")
        must("No space left on device" in ended.told and str(pipeline.store) in ended.told, f"says {ended.told}")
        must(pipeline.snapshots() == [] and pipeline.leftovers() == [], f"left {pipeline.leftovers()}")
        proof.figures["disk_full_runs"] = proof.figures.get("disk_full_runs", 0) + 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(pipeline.store)], check=True)
        again = pipeline.ingest()
        must(again.exit == 0 and len(pipeline.snapshots()) == 1, f"did not recover: {again.log[-600:]}")


def a_read_only_disk(proof: Proof) -> None:
    pipeline = Pipeline(proof.home / "disk-ro")
    with small_disk(pipeline.store, 4096):
        pipeline.deliver(rows_of())
        subprocess.run(["mount", "-o", "remount,ro", str(pipeline.store)], check=True)
        before, ended = pipeline.published(), pipeline.ingest()
        proof.refused(pipeline, ended, before, 75, "StorageUnavailable", str(pipeline.store), "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(pipeline.store)], check=True)
        must(pipeline.ingest().exit == 0, "did not recover")


def a_file_that_may_not_grow(proof: Proof, nbytes: int) -> None:
    """Where nothing can be mounted: the kernel refuses a write beyond a size, as it does on a full disk."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of(count=400))
    before = pipeline.published()
    command = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
    command = command.format(nbytes) + "runpy.run_module('include.jobs', run_name='__main__')"
    ended = pipeline.ended(pipeline.start(command=("-c", command)))
    proof.refused(pipeline, ended, before, 75, "StorageUnavailable", "cannot be written (File too large)")
    must(pipeline.ingest().exit == 0, "did not recover")


def of_disks(proof: Proof) -> list[Named]:
    if not may_mount(proof.home):
        proof.figures["full_disk"] = "RLIMIT_FSIZE"
        sizes = (0, 1000, 4000)
        return [(f"full disk: no file over {n} bytes", partial(a_file_that_may_not_grow, proof, n)) for n in sizes]
    proof.figures["full_disk"] = "tmpfs"
    stories: list[Named] = [
        (f"full disk: {kib} KiB", partial(a_full_disk, proof, kib))
        for kib in (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96)
    ]
    return [*stories, ("read-only disk", partial(a_read_only_disk, proof))]
