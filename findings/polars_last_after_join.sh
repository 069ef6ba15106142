#!/usr/bin/env bash
# After a lazy join, polars' unique(keep="last", maintain_order=True) keeps any row of an id: here the oldest.
#
# Why it matters: days are read in their order, restricted to the ids somebody asked for (a semi join), and the last row
# of each id is taken as the newest. Run on frames the same three words give the newest; run on lazy frames they do not.
#
# Guess, written before the first run: the semi join of many scanned files hands rows on in another order, in part, so
# that part of the ids get an older row; a few small files are safe; maintain_order="left" at the join cures it.
#
# Seen (2026-11-30, polars 2.1.0, Python 3.11, Linux x86-64): the guess was wrong in how it happens. Files, size and
# threads do not matter: nine rows in memory are enough, and all ids are hit. The joined rows of a semi join do come out
# in order. But a join promises no order unless it is told to, and from that the optimizer concludes that "last" means
# nothing: its plan says `maintain_order: false, keep_strategy: Any`, which takes the first row met. Semi, anti, inner
# and left joins alike; maintain_order="left" cures it, and so does switching the optimizer off. group_by(...).last()
# on the same lazy join gives the newest.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check polars==2.1.0

cat >"$work/expected" <<'TEXT'
polars 2.1.0
day of each id, frames: semi [2, 2] anti [2] inner [2, 2] left [2, 2, 2]
day of each id, lazy: semi [0, 0] anti [0] inner [0, 0] left [0, 0, 0]
day of each id, lazy, maintain_order="left": semi [2, 2] anti [2] inner [2, 2] left [2, 2, 2]
day of each id, lazy, no optimizer: semi [2, 2]
day of each id, lazy, group_by and last: semi [2, 2]
the joined rows are in order: semi True
the plan takes any row: True
TEXT
"$work/env/bin/python" - >"$work/seen" <<'PYTHON'
import polars as pl

rows = pl.DataFrame({"id": [1, 2, 3] * 3, "day": [0] * 3 + [1] * 3 + [2] * 3})
asked = pl.DataFrame({"id": [1, 3]})
JOINS = ("semi", "anti", "inner", "left")


def keep_newest(joined):
    return joined.unique(subset="id", keep="last", maintain_order=True)


def show(label, frames):
    print(f"{label}:", *(f"{how} {frame.sort('id')['day'].to_list()}" for how, frame in frames.items()))


def join(how, **options):
    return rows.lazy().join(asked.lazy(), on="id", how=how, **options)


print("polars", pl.__version__)
show("day of each id, frames", {how: keep_newest(rows.join(asked, on="id", how=how)) for how in JOINS})
show("day of each id, lazy", {how: keep_newest(join(how)).collect() for how in JOINS})
ordered = {how: keep_newest(join(how, maintain_order="left")).collect() for how in JOINS}
show('day of each id, lazy, maintain_order="left"', ordered)
plain = keep_newest(join("semi")).collect(optimizations=pl.QueryOptFlags.none())
show("day of each id, lazy, no optimizer", {"semi": plain})
grouped = join("semi").group_by("id").agg(pl.col("day").last()).collect()
show("day of each id, lazy, group_by and last", {"semi": grouped})
print("the joined rows are in order: semi", join("semi").collect()["day"].is_sorted())
print("the plan takes any row:", "keep_strategy: Any" in keep_newest(join("semi")).explain())
PYTHON
cat "$work/seen"
diff "$work/expected" "$work/seen"
