from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from include.kernel.errors import DataRefused
from include.monitoring import profile_stream
from include.monitoring.core.profiles import Profile, build_category_baseline, build_number_baseline
from include.monitoring.profile_stream import count_files


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(3)
    home = pa.array([None if code == 3 else ("own", "rent", "other")[code] for code in rng.integers(0, 4, 5000)])
    age = pa.array(rng.integers(18, 80, 5000), mask=rng.random(5000) < 0.1)
    return pa.table({"age": age, "unused": home, "home": home, "debt": rng.exponential(size=5000)})


@pytest.fixture
def baseline(table: pa.Table) -> dict[str, Profile]:
    ages = table["age"].to_pandas()
    return {
        "debt": build_number_baseline(table["debt"].to_numpy()),
        "age": build_number_baseline(ages),
        "home": build_category_baseline(table["home"].to_pylist()),
    }


@pytest.mark.parametrize("batch", [700, 1 << 16])
def test_files_of_both_formats_are_counted_as_one_table_whatever_the_batch(
    table: pa.Table, baseline: dict[str, Profile], tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_stream, "STREAM_BATCH_ROWS", batch)
    pq.write_table(table, tmp_path / "one.parquet", row_group_size=1100)
    pa.csv.write_csv(table, tmp_path / "two.csv")
    found = count_files([tmp_path / "one.parquet", tmp_path / "two.csv"], baseline)
    for name, profile in baseline.items():
        together = profile + profile
        assert found[name].counts == pytest.approx(together.counts)
        assert found[name].missing == together.missing


def test_no_file_is_no_row(baseline: dict[str, Profile]) -> None:
    assert [profile.rows for profile in count_files([], baseline).values()] == [0, 0, 0]


@pytest.mark.parametrize("name", ["lacking.parquet", "lacking.csv", "broken.parquet", "absent.parquet", "text.csv"])
def test_what_cannot_be_profiled_is_refused_in_a_sentence_that_names_the_file(
    name: str, table: pa.Table, baseline: dict[str, Profile], tmp_path: Path
) -> None:
    pq.write_table(table.drop(["home"]), tmp_path / "lacking.parquet")
    pa.csv.write_csv(table.drop(["home"]), tmp_path / "lacking.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "text.csv").write_text("age,home,debt\n31,own,much\n")
    with pytest.raises(DataRefused, match=f"{name} cannot be profiled .*; deliver it again with debt, age, home"):
        count_files([tmp_path / name], baseline)
