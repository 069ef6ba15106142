"""What stands behind the stores of data, by the environment: a directory, or a bucket.

Called at an edge alone (the entry of a job, a DAG, a server or a command); below it, what is opened is passed in.
Libraries are loaded with the first store that needs them, so that a DAG file may import this module.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from include.kernel.environment import read_setting

if TYPE_CHECKING:
    from include.data.store.job_results import JobResults
    from include.data.store.snapshot_store import SnapshotStore
    from include.data.store.work_units import WorkUnitStore


def read_snapshot_place() -> str:
    """The directory or s3:// bucket of EVERGREEN_SNAPSHOTS, by default EVERGREEN_STORE."""
    return os.environ.get("EVERGREEN_SNAPSHOTS") or read_setting("EVERGREEN_STORE")


def has_snapshots() -> bool:
    """Whether the environment names a place for them: a model server may run without one."""
    return bool(os.environ.get("EVERGREEN_SNAPSHOTS") or os.environ.get("EVERGREEN_STORE"))


def open_snapshot_store() -> SnapshotStore:
    """EVERGREEN_STORE itself is always a local directory: the ledger and the reports are appended to and locked there,
    which a bucket cannot do, while snapshots must be reachable from every machine that trains.
    """
    place = read_snapshot_place()
    if place.startswith("s3://"):
        from include.data.store.s3_store import S3SnapshotStore

        return S3SnapshotStore(place, cache=Path(read_setting("EVERGREEN_STORE")) / "cache")
    from include.data.store.local_store import LocalSnapshotStore

    return LocalSnapshotStore(Path(place))


def open_job_results() -> JobResults:
    """What jobs in pods left, beside the snapshots."""
    from include.data.store.job_results import JobResults

    return JobResults(open_snapshot_store().objects)


def open_work_units(keep_days: int) -> WorkUnitStore:
    """Parts of jobs' work that any process may have made, beside the snapshots."""
    from include.data.store.work_units import WorkUnitStore

    return WorkUnitStore(open_snapshot_store().objects, keep_days)


def find_work_room() -> Path:
    """Where jobs keep what is not published yet: on the store's own disk if it has one, so that nothing is copied."""
    place = read_snapshot_place()
    return Path(read_setting("EVERGREEN_STORE") if place.startswith("s3://") else place) / "scratch"


def find_data_docs() -> Path:
    """Where Great Expectations keeps its pages."""
    return Path(read_setting("EVERGREEN_STORE")) / "data_docs"
