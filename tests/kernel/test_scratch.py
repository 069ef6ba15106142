"""Room to work in: swept when its owner is dead, never while it lives. A disk that says no is told in a sentence."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from include.data.landing.landing import land
from include.data.store.local_store import LocalSnapshotStore
from include.kernel.errors import StorageUnavailable
from include.kernel.files import open_scratch_directory
from tests.delivered import described, rows, written

ROOT = Path(__file__).resolve().parents[2]

OWNER = """
import sys
from pathlib import Path
from include.kernel.files import open_scratch_directory
with open_scratch_directory(Path(sys.argv[1])) as room:
    (room / "half.parquet").write_text("half")
    print(room, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_owner(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(parent)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_room_is_gone_when_its_owner_leaves_it(tmp_path):
    with open_scratch_directory(tmp_path) as room:
        (room / "f").write_text("x")
    assert list(tmp_path.glob("work-*")) == []


def test_a_living_owner_keeps_its_room_and_a_killed_ones_is_swept_by_the_next(tmp_path):
    with another_owner(tmp_path) as (alive, kept), another_owner(tmp_path) as (dead, left):
        dead.kill()
        dead.wait()
        with open_scratch_directory(tmp_path):
            assert (kept / "half.parquet").exists()
            assert not left.exists()
        assert alive.poll() is None


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the kernel refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_landing_on_a_disk_that_is_full_is_one_sentence_with_the_place(tmp_path):
    many = pa.RecordBatch.from_pydict({"x": list(range(100_000))})
    with pytest.raises(StorageUnavailable, match=r"landed\.parquet cannot be written \(.*\); make room"), at_most(999):
        land([many], tmp_path)


@pytest.mark.parametrize("size", [0, 1, 50, 100, 200, 400])
def test_publishing_on_a_disk_that_fills_up_leaves_what_was_there_and_can_be_done_again(tmp_path, size):
    store = LocalSnapshotStore(tmp_path / "store")
    old, new = (written(rows(number), tmp_path, f"{number}.parquet") for number in (1.0, 2.0))
    store.publish(described(old), old)
    with pytest.raises(StorageUnavailable, match="cannot be written"), at_most(size):
        store.publish(described(new), new)
    assert [found.id for found in store.list_snapshots()] == [described(old).id]
    assert store.publish(described(new), new) is True
    assert store.read_rows(store.list_snapshots())["Income"].tolist() == [2.0]
    assert [
        path.name for path in (tmp_path / "store").rglob("*") if path.name.startswith(".") and path.name != ".lock"
    ] == []
