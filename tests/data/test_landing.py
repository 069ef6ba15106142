"""Landing: what was delivered stands in one file, in its order, in little memory; a schema that changes is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.data.landing.landing import FILE_KEY, land
from include.kernel.errors import DataRefused

ROOT = Path(__file__).resolve().parents[2]


def batch(file: str = "", **columns: object) -> pa.RecordBatch:
    made = pa.RecordBatch.from_pydict(columns)
    return made.replace_schema_metadata({FILE_KEY: file.encode()}) if file else made


def test_all_rows_stand_in_one_file_in_the_order_they_came(tmp_path):
    landed = land((batch(x=list(range(n, n + 3)), y=["a", None, ""]) for n in range(0, 30, 3)), tmp_path)
    assert (landed.rows, landed.columns) == (30, ("x", "y"))
    table = pq.read_table(landed.path)
    assert table["x"].to_pylist() == list(range(30))
    assert table["y"].to_pylist() == ["a", None, ""] * 10


@pytest.mark.parametrize("batches", [[], [batch(x=[])]], ids=["no batch", "a batch without rows"])
def test_nothing_delivered_is_nothing_landed(tmp_path, batches):
    assert land(batches, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_columns_in_another_order_are_put_in_order(tmp_path):
    landed = land([batch(x=[1], y=["a"]), batch(y=["b"], x=[2])], tmp_path)
    assert pq.read_table(landed.path).to_pylist() == [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]


def test_a_column_that_is_empty_throughout_a_file_has_the_type_of_the_others(tmp_path):
    landed = land([batch(x=[1], y=["a"]), batch(x=[2], y=pa.nulls(1))], tmp_path)
    assert pq.read_table(landed.path)["y"].to_pylist() == ["a", None]


CHANGED = [
    (batch("b.csv", x=[1]), "b.csv lacks column(s) 'y', unlike the rows before it"),
    (batch("b.csv", x=[1], y=["a"], z=[0]), "b.csv has 'z', unlike the rows before it"),
    (batch("b.csv", x=[1], Y=["a"]), "b.csv lacks column(s) 'y' and has 'Y', unlike the rows before it"),
    (batch("b.csv", x=["1"], y=["a"]), "b.csv holds column 'x' as string, where the rows before it hold int64"),
    (batch(x=[1]), "the delivery lacks column(s) 'y', unlike the rows before it"),
]


@pytest.mark.parametrize(("second", "told"), CHANGED)
def test_a_schema_that_changes_within_a_day_is_named_with_file_and_column(tmp_path, second, told):
    with pytest.raises(DataRefused) as caught:
        land([batch("a.csv", x=[1], y=["a"]), second], tmp_path)
    assert str(caught.value) == f"{told}; deliver all files of a day with the same columns."


def test_a_column_that_is_named_twice_is_refused(tmp_path):
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataRefused, match="the delivery names column 'x' twice"):
        land([twice], tmp_path)


MEMORY = """
import resource, sys, tempfile
from pathlib import Path
import pyarrow as pa
from include.data.store.content import compute_content_id
from include.data.landing.landing import land
def batches(count):
    for number in range(count):
        numbers = pa.array(range(number * 65_536, (number + 1) * 65_536), pa.float64())
        yield pa.RecordBatch.from_pydict({f"c{c}": numbers for c in range(10)})
with tempfile.TemporaryDirectory() as place:
    print(compute_content_id(land(batches(int(sys.argv[1])), Path(place)).path), end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_day():
    """Eight times the rows, 40 MB against 330 MB of values: less than 60 MB more in memory."""
    peaks = []
    for count in ("8", "64"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, count], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[1]) / 1024)
    assert peaks[1] - peaks[0] < 60, peaks
