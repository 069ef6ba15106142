"""Where the prediction log and the outcomes lie, by the environment: beside the snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from include.data.wiring import read_snapshot_place

if TYPE_CHECKING:
    from include.feedback.segments import Segments


def open_segments(attempts: int = 5) -> Segments:
    """`attempts` at one request to a bucket."""
    from include.feedback.segments import Segments

    place = read_snapshot_place()
    if place.startswith("s3://"):
        from include.data.store import s3_client
        from include.data.store.s3_store import S3ObjectStore

        patient = s3_client.make_client(read_timeout_s=10.0, attempts=attempts)
        return Segments(S3ObjectStore(place, cache=Path(), client=patient))
    from include.data.store.local_store import LocalObjectStore

    return Segments(LocalObjectStore(Path(place)))
