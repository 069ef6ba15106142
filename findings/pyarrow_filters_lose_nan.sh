#!/usr/bin/env bash
# pyarrow's read_table(filters=...) drops rows with NaN that the same filter keeps on the table in memory.
#
# Why it matters: "everything but zero" on a float column is how a batch job asks for its part of a day. NaN != 0 is
# true, and a filter is expected to select the same rows before and after reading.
#
# Guess, written before the first run: `x != 0` keeps the NaN row when the table is filtered in memory. Pushed down into
# a file whose row group holds zeros and NaN alone, the statistics (from 0 to 0; NaN is left out of them) say that no
# row differs from 0, so the whole row group is skipped and the NaN row is gone. Beside another value in the same row
# group it is kept: the answer depends on how the file is cut.
#
# Seen (2026-11-30, pyarrow 25.0.1, Python 3.11, Linux x86-64): as guessed. Cut into row groups of two rows the file
# gives one row less than as one row group; written without statistics it gives both rows however it is cut.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==25.0.1

cat >"$work/expected" <<'TEXT'
pyarrow 25.0.1
filtered in memory: [nan, 7.0]
one row group: [nan, 7.0]
row groups of two rows: [7.0]
row groups of two rows, without statistics: [nan, 7.0]
TEXT
cd "$work"
"$work/env/bin/python" - >"$work/seen" <<'PYTHON'
import math

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

table = pa.table({"x": pa.array([0.0, math.nan, 0.0, 7.0])})
asked = pc.field("x") != 0.0


def read_filtered(**options):
    pq.write_table(table, "x.parquet", **options)
    return pq.read_table("x.parquet", filters=asked)["x"].to_pylist()


print("pyarrow", pa.__version__)
print("filtered in memory:", table.filter(asked)["x"].to_pylist())
print("one row group:", read_filtered())
print("row groups of two rows:", read_filtered(row_group_size=2))
print("row groups of two rows, without statistics:", read_filtered(row_group_size=2, write_statistics=False))
PYTHON
cat "$work/seen"
diff "$work/expected" "$work/seen"
