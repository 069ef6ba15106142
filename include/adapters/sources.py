"""Where one day's rows come from, behind one port: `Source.read(day)` returns the raw rows of that day or raises.

`ReplaySource` deals the rows of one shipped file, without replacement and in a seeded order, into days that lie wholly
in the past. The rows are real; the ids and the days are ours. A scenario changes later days openly: only a person who
asks for it by name gets one, and its name goes into the snapshot's description.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from include.core.errors import DataRefused, RequestInvalid
from include.core.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parents[2]


def read_day(manifest: Manifest, day: date, scenario: str | None = None) -> pd.DataFrame:
    """The rows of `day`, possibly none. Raises `DataRefused` naming the file when they cannot be read."""
    if manifest.source.kind == "replay":
        return _scenario(scenario)(_replay(manifest, day))
    if scenario:
        raise RequestInvalid(f"Scenario {scenario!r} exists for the replay source only; leave it empty.")
    return _read(_absolute(manifest.source.path.format(day=day.isoformat())), missing_is_empty=True)


def _absolute(path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else ROOT / path


def _read(path: Path, missing_is_empty: bool = False) -> pd.DataFrame:
    import pandas as pd

    if missing_is_empty and not path.exists():
        return pd.DataFrame()
    reader = pd.read_parquet if path.suffix == ".parquet" else _read_csv
    try:
        return reader(path)
    except Exception as error:
        cause = " ".join(str(error).split())
        raise DataRefused(f"{path} cannot be read ({cause}); deliver the file again, whole.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    raw = path.read_bytes()
    if raw and not raw.endswith(b"\n"):
        raise ValueError("its last line has no end, so it was cut off")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header: cut, by default
        return pd.read_csv(path, keep_default_na=False, na_values=[""], index_col=False)


def _replay(manifest: Manifest, day: date) -> pd.DataFrame:
    import numpy as np

    source = manifest.source
    assert source.first_day is not None and source.days is not None
    rows = _read(_absolute(source.path))
    index = (day - source.first_day).days
    if not 0 <= index < source.days:
        return rows.iloc[:0]
    order = np.random.default_rng(source.seed).permutation(len(rows))
    dealt = np.array_split(order, source.days)[index]
    ids = [f"A{day:%Y%m%d}-{number:04d}" for number in range(len(dealt))]
    frame = rows.iloc[dealt].reset_index(drop=True)
    frame.insert(0, manifest.contract.id, ids)
    return frame


def _unchanged(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def _new_market(rows: pd.DataFrame) -> pd.DataFrame:
    """Loans grow by a third, and three relations turn round: seniority, income and records now speak the other way.

    Mirroring a column's values keeps every row's outcome and changes what the column says about it, so a model that
    learned the old relation cannot rank these applicants.
    """
    changed = rows.copy()
    changed["Amount"] = (rows["Amount"] * 1.35).round()
    changed["Price"] = (rows["Price"] * 1.35).round()
    changed["Seniority"] = 48 - rows["Seniority"]
    changed["Income"] = (30_000 / rows["Income"].clip(lower=40)).round()
    changed["Records"] = rows["Records"].map({"yes": "no", "no": "yes"})
    return changed


SCENARIOS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {"new_market": _new_market}


def _scenario(name: str | None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    if not name:
        return _unchanged
    if name not in SCENARIOS:
        raise RequestInvalid(f"There is no scenario {name!r}; choose one of {', '.join(SCENARIOS)} or leave it empty.")
    return SCENARIOS[name]
