#!/usr/bin/env bash
# river's ADWIN, given one NaN, never finds a drift again: not even errors that rise from 10 % to 90 %.
#
# Why it matters: the errors or scores of a live model go into the detector one by one. One missing value among a
# million ends the alarm for as long as the process lives, and nothing says so.
#
# Guess, written before the first run: update(nan) raises nothing. From then on the sums inside are NaN, each comparison
# with a bound is false, drift_detected stays False, and `estimation` is NaN for ever. PageHinkley goes the same way,
# since its running mean is a sum as well; KSWIN, which compares two samples of a window, recovers once the NaN has left.
#
# Seen (2026-11-30, river 0.26.1, Python 3.11, Linux x86-64): as guessed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check river==0.26.1

cat >"$work/expected" <<'TEXT'
river 0.26.1
ADWIN: alarms 1, after one NaN 0
PageHinkley: alarms 1, after one NaN 0
KSWIN: alarms 1, after one NaN 1
ADWIN's estimation 5,000 values after the NaN: nan
TEXT
"$work/env/bin/python" - >"$work/seen" <<'PYTHON'
import math
import random
from importlib.metadata import version

from river import drift

dice = random.Random(7)
before = [float(dice.random() < 0.1) for _ in range(2_000)]
after = [float(dice.random() < 0.9) for _ in range(5_000)]


def count_alarms(detector, values):
    alarms = 0
    for value in values:
        detector.update(value)
        alarms += detector.drift_detected
    return alarms


print("river", version("river"))
for name, make in {"ADWIN": drift.ADWIN, "PageHinkley": drift.PageHinkley, "KSWIN": lambda: drift.KSWIN(seed=7)}.items():
    plain, blinded = count_alarms(make(), [*before, *after]), count_alarms(make(), [*before, math.nan, *after])
    print(f"{name}: alarms {plain}, after one NaN {blinded}")
adwin = drift.ADWIN()
count_alarms(adwin, [*before, math.nan, *after])
print("ADWIN's estimation 5,000 values after the NaN:", adwin.estimation)
PYTHON
cat "$work/seen"
diff "$work/expected" "$work/seen"
