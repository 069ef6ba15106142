from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest

from include.data.sources.replay import SCENARIOS
from include.kernel.errors import DataRefused, RequestInvalid
from include.manifest import DEFAULT_PATH, load
from tests import credit
from tests.delivered import read_day

MANIFEST = load(DEFAULT_PATH)
FIRST, DAYS = MANIFEST.source.first_day, MANIFEST.source.days


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.fixture(scope="module")
def dealt() -> pd.DataFrame:
    return pd.concat([read_day(MANIFEST, day(number)) for number in range(DAYS)], ignore_index=True)


class TestReplay:
    def test_every_row_is_dealt_exactly_once(self, dealt):
        columns = list(credit.data().columns)
        expected = credit.data().sort_values(columns, ignore_index=True)
        found = dealt[columns].sort_values(columns, ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    def test_every_row_has_an_id_of_its_own(self, dealt):
        assert dealt["application_id"].is_unique

    def test_days_are_of_one_size(self):
        sizes = {len(read_day(MANIFEST, day(number))) for number in range(DAYS)}
        assert max(sizes) - min(sizes) <= 1

    def test_a_day_is_the_same_whenever_it_is_read(self):
        pd.testing.assert_frame_equal(read_day(MANIFEST, day(7)), read_day(MANIFEST, day(7)))

    def test_another_seed_deals_another_day(self):
        other = MANIFEST.model_copy(update={"source": MANIFEST.source.model_copy(update={"seed": 8})})
        assert not read_day(other, day(7)).equals(read_day(MANIFEST, day(7)))

    @pytest.mark.parametrize("number", [-1, DAYS, DAYS + 400])
    def test_a_day_outside_has_no_rows_but_their_columns(self, number):
        found = read_day(MANIFEST, day(number))
        assert found.empty

    def test_all_days_lie_in_the_past(self):
        """A replay of the future would be ingested the moment somebody unpauses a DAG."""
        assert day(DAYS - 1) < date.today()


class TestScenario:
    def test_it_changes_the_columns_it_says_it_changes_and_no_other(self):
        plain, changed = read_day(MANIFEST, day(40)), read_day(MANIFEST, day(40), "new_market")
        moved = {name for name in plain if not plain[name].equals(changed[name])}
        assert moved == {"Amount", "Price", "Seniority", "Income", "Records"}

    def test_it_changes_no_outcome_and_no_row(self):
        plain, changed = read_day(MANIFEST, day(40)), read_day(MANIFEST, day(40), "new_market")
        pd.testing.assert_frame_equal(changed[["application_id", "Status"]], plain[["application_id", "Status"]])

    def test_nobody_gets_one_without_asking(self):
        pd.testing.assert_frame_equal(read_day(MANIFEST, day(40), None), read_day(MANIFEST, day(40), ""))

    def test_an_unknown_one_is_refused_with_those_there_are(self):
        with pytest.raises(RequestInvalid, match="no scenario 'new_markt'; choose one of new_market"):
            read_day(MANIFEST, day(1), "new_markt")
        assert set(SCENARIOS) == {"new_market"}


class TestFiles:
    @pytest.fixture
    def manifest(self, small, tmp_path):
        return small(**{"source": {"kind": "files", "path": str(tmp_path / "{day}.csv")}})

    def test_a_file_is_read_as_it_was_delivered(self, manifest, tmp_path):
        (tmp_path / "2026-08-01.csv").write_text("id,Home,Income\n1,NA,\n2,own,7\n")
        found = read_day(manifest, FIRST)
        assert found["Home"].tolist() == ["NA", "own"]  # a word is a word; only an empty field is missing
        assert found["Income"].isna().tolist() == [True, False]

    def test_a_day_that_was_not_delivered_has_no_rows(self, manifest):
        assert read_day(manifest, FIRST).empty

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("id,Home\n1,own\n2,re", "cannot be read (its last line has no end, so it was cut off)"),
            ("", "is empty (0 bytes)"),
            ('id,Home\n1,own\n2,"own\n', "a quotation mark in row 3 is never closed"),
            ("id,Home\n1,2\n1\n", "cannot be read (row 3 has 1 cells, but its header has 2)"),
            ("id,Home\n1,2,3\n", "(row 2 has 3 cells, but its header has 2; the header, row 1, seems to be shifted)"),
        ],
    )
    def test_a_truncated_or_garbled_file_is_refused_by_its_name(self, manifest, tmp_path, content, told):
        (tmp_path / "2026-08-01.csv").write_text(content)
        with pytest.raises(DataRefused) as caught:
            read_day(manifest, FIRST)
        assert str(caught.value).startswith(str(tmp_path / "2026-08-01.csv"))
        assert told in str(caught.value)
        assert "; deliver the file again, whole" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_truncated_parquet_is_refused_too(self, small, tmp_path):
        path = tmp_path / "2026-08-01.parquet"
        credit.data().head(50).to_parquet(path)
        path.write_bytes(path.read_bytes()[:-40])
        manifest = small(**{"source": {"kind": "files", "path": str(tmp_path / "{day}.parquet")}})
        with pytest.raises(DataRefused, match="cannot be read"):
            read_day(manifest, FIRST)

    def test_a_scenario_is_for_the_replay_only(self, manifest):
        with pytest.raises(RequestInvalid, match="replay source only"):
            read_day(manifest, FIRST, "new_market")

    def test_a_replay_whose_file_is_gone_is_refused(self, small):
        with pytest.raises(DataRefused, match="cannot be read"):
            read_day(small(**{"source.path": "include/data/gone.csv"}), FIRST)
