#!/usr/bin/env bash
# A date beyond 2262 that Spark wrote as int96 is read as another date, in the nineteenth century, without a word.
#
# Why it matters: 9999-12-31 is how warehouses write "no end", and int96 is what Spark and Impala write timestamps as. A
# contract that asks for an end after the beginning is broken by every open-ended row, or, worse, a model learns from it.
#
# Guess, written before the first run: pyarrow reads int96 as nanoseconds in 64 bits, so 9999-12-31 wraps round to
# 1816-03-29 or so, with no warning and no overflow check; coerce_int96_timestamp_unit="us" gives the right date. pandas,
# which reads by pyarrow, shows the same. polars, which has a reader of its own, gives the right date.
#
# Seen (2026-12-01, pyarrow 25.0.1, pandas 2.3.3, polars 2.1.0, Python 3.11, Linux x86-64): as guessed, with every warning
# of Python turned into an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==25.0.1 polars==2.1.0 pandas==2.3.3

cat >"$work/expected" <<'TEXT'
pyarrow 25.0.1 polars 2.1.0 pandas 2.3.3
pyarrow: ['1816-03-29', '2026-08-01']
pyarrow, coerce us: ['9999-12-31', '2026-08-01']
pandas: ['1816-03-29', '2026-08-01']
polars: ['9999-12-31', '2026-08-01']
TEXT
cd "$work"
"$work/env/bin/python" -W error - >"$work/seen" <<'PYTHON'
from datetime import datetime

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ends = pa.table({"end": pa.array([datetime(9999, 12, 31), datetime(2026, 8, 1)], pa.timestamp("us"))})
pq.write_table(ends, "spark.parquet", use_deprecated_int96_timestamps=True)


def days(values):
    return [str(value)[:10] for value in values]


print("pyarrow", pa.__version__, "polars", pl.__version__, "pandas", pd.__version__)
print("pyarrow:", days(pq.read_table("spark.parquet")["end"].to_pylist()))
print("pyarrow, coerce us:", days(pq.read_table("spark.parquet", coerce_int96_timestamp_unit="us")["end"].to_pylist()))
print("pandas:", days(pd.read_parquet("spark.parquet")["end"]))
print("polars:", days(pl.read_parquet("spark.parquet")["end"]))
PYTHON
cat "$work/seen"
diff "$work/expected" "$work/seen"
