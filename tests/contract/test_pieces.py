"""Pieces in a directory and in a bucket: made once, made again when damaged, and the first of two counts."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.data.store.work_units import WorkUnitStore
from include.data.wiring import open_snapshot_store, open_work_units
from include.kernel.work_units import build_work_unit
from include.manifest import read_manifest
from tests.counterparts import S3Server

DAY = date(2026, 8, 1)
PIECE = build_work_unit("profiles", DAY, "a")


@pytest.fixture(params=["local", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkUnitStore:
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("buckets")
        bucket = f"pieces-{uuid.uuid4().hex}"
        server.client().create_bucket(Bucket=bucket)
        monkeypatch.setenv("EVERGREEN_SNAPSHOTS", f"s3://{bucket}/credit")
    return open_work_units(read_manifest().fan_out.keep_days)


def never() -> bytes:
    raise AssertionError("it was there")


def test_what_is_there_is_not_made_again(kept: WorkUnitStore) -> None:
    assert not kept.has(PIECE)
    assert kept.get_or_make(PIECE, lambda: b"counts") == b"counts"
    assert kept.get_or_make(PIECE, never) == b"counts" and kept.has(PIECE)


@pytest.mark.parametrize("damage", [b"", b"half of", build_work_unit("profiles", DAY, "b").wrap(b"another's")])
def test_what_is_damaged_or_anothers_is_made_again_in_its_place(kept: WorkUnitStore, damage: bytes) -> None:
    objects = open_snapshot_store().objects
    assert objects.write(PIECE.place, damage, None)
    assert kept.read(PIECE) is None
    assert kept.get_or_make(PIECE, lambda: b"counts") == b"counts"
    assert kept.get_or_make(PIECE, never) == b"counts"
    assert objects.list_keys("pieces/") == [PIECE.place]


def test_of_two_that_made_it_at_once_the_first_counts_for_both(kept: WorkUnitStore) -> None:
    def slower() -> bytes:
        assert open_work_units(read_manifest().fan_out.keep_days).get_or_make(PIECE, lambda: b"first") == b"first"
        return b"second"

    assert kept.get_or_make(PIECE, slower) == kept.get_or_make(PIECE, never) == b"first"


def test_what_failed_leaves_nothing(kept: WorkUnitStore) -> None:
    with pytest.raises(AssertionError):
        kept.get_or_make(PIECE, never)
    assert open_snapshot_store().objects.list_keys("pieces/") == []


def test_old_pieces_of_one_kind_are_swept_and_those_of_others_left(kept: WorkUnitStore) -> None:
    old = [build_work_unit(kind, DAY, "a") for kind in ("profiles", "tuning")]
    young = build_work_unit("profiles", DAY + timedelta(days=1), "a")
    for made in (*old, young):
        kept.get_or_make(made, lambda: b"x")
    assert kept.sweep("profiles", DAY + timedelta(days=91)) == 1
    assert [kept.has(made) for made in (*old, young)] == [False, True, True]
    assert kept.sweep("profiles", DAY + timedelta(days=91)) == 0
