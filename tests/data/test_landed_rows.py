"""Landed rows are read alike, whether their parts lie in one file or in many."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from include.data.landing.landed_rows import LandedRows
from include.data.landing.landing import land, land_parts

Part = list[pa.RecordBatch]
BATCH = st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["a", "b", None])), max_size=9)
PARTS = st.lists(st.lists(BATCH, max_size=3), min_size=1, max_size=4)
SCHEMA = pa.schema([("x", pa.int64()), ("y", pa.string())])


def part(batches: list[list[tuple[int, str | None]]]) -> Part:
    return [
        pa.RecordBatch.from_pydict({"x": [x for x, _ in rows], "y": [y for _, y in rows]}, schema=SCHEMA)
        for rows in batches
    ]


def apart(parts: list[Part], room: Path) -> LandedRows | None:
    """Each part landed in a file of its own."""
    fragments = []
    for number, batches in enumerate(parts):
        own = room / str(number)
        own.mkdir()
        landing = land(batches, own)
        fragments += LandedRows.build_from_landing(landing).fragments if landing else ()
    return LandedRows(tuple(fragments)) if fragments else None


@given(PARTS, st.integers(1, 12))
def test_one_file_and_many_give_the_same_batches_the_same_head_and_the_same_file(tmp_path_factory, delivered, size):
    parts = [part(batches) for batches in delivered]
    room = tmp_path_factory.mktemp("rows")
    landing, many = land_parts(parts, room), apart(parts, room)
    if landing is None:
        assert many is None
        return
    one = LandedRows.build_from_landing(landing)
    assert many is not None and one.count == many.count == landing.rows
    assert list(one.read_batches(["y", "x"], size)) == list(many.read_batches(["y", "x"], size))
    wanted = pa.Table.from_batches([batch for batches in parts for batch in batches], SCHEMA)
    assert one.read_head(size) == many.read_head(size) == wanted.slice(0, size)
    assert one.ensure_file(room) == landing.path
    (room / "joined").mkdir()
    assert many.ensure_file(room / "joined").read_bytes() == landing.path.read_bytes()


def test_a_part_is_read_up_to_its_end_and_no_further(tmp_path):
    landing = land_parts([part([[(1, "a")] * 3, [(2, "b")] * 2]), [], part([[(3, None)] * 4])], tmp_path)
    assert landing is not None
    assert landing.parts == (range(2), range(2, 2), range(2, 3))
    rows = LandedRows.build_from_landing(landing)
    assert [batch.num_rows for batch in rows.read_batches(["x"], 4)] == [4, 1, 4]
    assert [sum(batch.num_rows for batch in each) for each in rows.read_fragments(["x"], 4)] == [5, 4]
