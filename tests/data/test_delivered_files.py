"""Files as they really arrive: whole, cut, turned, shifted, huge when unfolded; through the source that finds them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.data.sources import delivered_files
from include.data.sources.base import MAX_BATCH_ROWS
from include.data.sources.delivered_files import BATCH_BYTES
from include.data.sources.files import Files
from include.data.spec import FilesSource
from include.kernel.errors import Conflict, DataRefused, ServiceUnavailable

DAY = date(2026, 8, 1)
Read = Callable[..., list[pa.RecordBatch]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.fixture
def read(place: Path) -> Read:
    """Delivers bytes, or a table as Parquet, as the day's file and reads it."""
    place.mkdir()

    def read_one(
        content: bytes | pa.Table, name: str = "", max_gib: float = 16, **parquet: Any
    ) -> list[pa.RecordBatch]:
        name = name or ("a.csv" if isinstance(content, bytes) else "a.parquet")
        if isinstance(content, bytes):
            (place / name).write_bytes(content)
        else:
            pq.write_table(content, place / name, **parquet)
        return list(files(place / f"{{day}}/../{name}", max_gib).read_batches(DAY))

    (place / str(DAY)).mkdir()
    return read_one


def files(pattern: Path | str, max_gib: float = 16) -> Files:
    return Files(FilesSource.model_validate({"kind": "files", "path": str(pattern), "max_gib": max_gib}))


def table(count: int = 200) -> pa.Table:
    return pa.table(
        {"id": [f"A{n}" for n in range(count)], "n": list(range(count)), "x": [n / 7 for n in range(count)]}
    )


def refused(read: Read, content: bytes | pa.Table, **more: Any) -> str:
    with pytest.raises(DataRefused) as caught:
        read(content, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestCsv:
    def test_cells_come_as_they_are_and_only_an_empty_one_is_missing(self, read: Read) -> None:
        [batch] = read(b'\xef\xbb\xbfid,n,t\r\n007,,NA\r\n8,1e400,"a ""b"",\n c"\r\n9,"",5" pipe\r\n')
        assert batch.to_pylist() == [
            {"id": "007", "n": None, "t": "NA"},
            {"id": "8", "n": "1e400", "t": 'a "b",\n c'},
            {"id": "9", "n": None, "t": '5" pipe'},
        ]

    def test_batches_are_bounded_and_keep_the_order(self, read: Read) -> None:
        batches = read(b"id\n" + b"".join(b"%d\n" % n for n in range(400_000)))
        assert max(batch.num_rows for batch in batches) <= MAX_BATCH_ROWS
        assert [int(cell) for batch in batches for cell in batch.column("id").to_pylist()] == list(range(400_000))

    def test_a_header_alone_is_a_delivery_without_rows(self, read: Read) -> None:
        assert read(b"id,n\n") == []

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is empty (0 bytes); deliver the file again, whole."),
            (b"id,n\n1,2\n3,4", "cannot be read (its last line has no end, so it was cut off)"),
            (b'id,n\n1,2\n3,"x\n4,5\n', "a quotation mark in row 3 is never closed"),
            (b"id,n\n1,2,3\n", "(row 2 has 3 cells, but its header has 2; the header, row 1, seems to be shifted)"),
            (b"id,n\n1,2\n3\n", "(row 3 has 1 cells, but its header has 2)"),
            (b"report of today\nid,n\n1,2\n", "(row 2 has 2 cells, but its header has 1; the header, row 1, seems"),
            (
                b"id,n,n\n1,2,3\n",
                "its header, row 1, names column 'n' 2 times; deliver it with one name for one",
            ),
            (b"id,,n\n1,2,3\n", "column 2 of its header, row 1, has no name"),
            (b"\nid,n\n1,2\n", "its header, row 1, has no name"),
            (b"id;n\n1;2\n", "seems to be separated by ';'; deliver it separated by commas"),
            (b"id,\xff\n1,2\n", "its header, row 1, is not plain UTF-8 text; deliver the file as UTF-8"),
            (b"id,n\n1,2\n3,\xff\xfe\n", "row 3, column 'n' is not UTF-8 text; deliver the file as UTF-8"),
            ("id,n\n1,2\n".encode("utf-16"), "its header, row 1, is not plain UTF-8 text"),
        ],
    )
    def test_what_is_no_table_is_refused_by_file_row_and_fix(
        self, read: Read, place: Path, content: bytes, told: str
    ) -> None:
        sentence = refused(read, content)
        assert sentence.startswith(f"{place / str(DAY) / '..' / 'a.csv'}") and told in sentence

    def test_rows_are_counted_over_the_whole_file_and_not_within_a_block(self, read: Read) -> None:
        many = b"id,n\n" + b"1,%s\n" % (b"x" * 100) * 120_000
        assert "(row 120002 has 3 cells" in refused(read, many + b"1,2,3\n")
        assert "row 120002, column 'n' is not UTF-8" in refused(read, many + b"1,\xff\n")

    def test_a_line_without_end_is_refused_before_it_fills_the_memory(self, read: Read) -> None:
        assert "a line is longer than 4 MiB" in refused(read, b"id,n\n1," + b"x" * 9_000_000 + b"\n")

    def test_a_header_cannot_write_into_the_log(self, read: Read) -> None:
        sentence = refused(read, b'id,"<b>\x1b[31m\n","<b>\x1b[31m\n"\n1,2,3\n')
        assert "\x1b" not in sentence and "\n" not in sentence

    def test_a_day_of_more_than_the_bound_is_refused_while_it_is_read(self, read: Read) -> None:
        told = "unfolds to more than source.max_gib = 0.001 GiB; deliver a smaller file, or raise the bound"
        assert told in refused(read, b"id\n" + b"123456789\n" * 200_000, max_gib=0.001)


class TestParquet:
    def test_types_stay_and_every_kind_of_text_becomes_plain_text(self, read: Read) -> None:
        texts = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
        columns = {f"t{n}": pa.array(["é", None, "b"], kind) for n, kind in enumerate(texts)}
        numbers = {"i": pa.array([1, None, 3], pa.int16()), "d": pa.array([DAY, None, DAY])}
        [batch] = read(pa.table(columns | numbers))
        assert [field.type for field in batch.schema] == [pa.string()] * 4 + [pa.int16(), pa.date32()]
        assert batch.column("t3").to_pylist() == ["é", None, "b"]

    def test_batches_are_bounded_in_rows_and_in_bytes(self, read: Read) -> None:
        assert max(batch.num_rows for batch in read(table(200_000))) <= MAX_BATCH_ROWS
        wide = pa.table({"t": ["x" * 100_000] * 3000})
        batches = read(wide, row_group_size=1500)
        assert sum(batch.num_rows for batch in batches) == 3000
        assert max(batch.nbytes for batch in batches) <= BATCH_BYTES * 1.1

    def test_a_file_without_rows_is_a_delivery_without_rows(self, read: Read) -> None:
        assert read(table(0)) == []

    def test_a_text_said_a_million_times_is_refused_before_it_is_unfolded(self, read: Read, place: Path) -> None:
        bomb = pa.table({"t": pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000), pa.array(["x" * 100_000]))})
        sentence = refused(read, bomb)  # a hundred gigabytes of text
        assert (place / "a.parquet").stat().st_size < 300_000
        assert "a.parquet unfolds to more than source.max_gib = 16 GiB" in sentence

    def test_a_text_said_often_is_unfolded_piece_by_piece(self, place: Path) -> None:
        place.mkdir()
        (place / str(DAY)).mkdir()
        large = pa.table({"t": pa.DictionaryArray.from_arrays(pa.array([0] * 30_000), pa.array(["x" * 100_000]))})
        pq.write_table(large, place / str(DAY) / "a.parquet")  # three gigabytes of text
        sizes = [batch.nbytes for batch in files(place / "{day}" / "a.parquet").read_batches(DAY)]
        assert sum(sizes) > 3_000_000_000 and max(sizes) <= BATCH_BYTES * 1.1

    def test_a_billion_rows_in_a_few_bytes_are_refused_by_what_the_file_says_of_itself(self, read: Read) -> None:
        nothing = pa.table({"a": pa.nulls(30_000_000, pa.int64())})
        assert "unfolds to more than" in refused(read, nothing, max_gib=0.1)

    @pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -8, -200])
    def test_a_truncated_file_is_refused_by_its_name(self, read: Read, place: Path, keep: int) -> None:
        pq.write_table(table(), place / "whole.parquet")
        sentence = refused(read, (place / "whole.parquet").read_bytes()[:keep], name="a.parquet")
        assert "a.parquet" in sentence and sentence.endswith("; deliver the file again, whole.")

    def test_what_is_no_parquet_at_all_is_refused(self, read: Read) -> None:
        assert "a.parquet cannot be read" in refused(read, b"id,n\n1,2\n", name="a.parquet")

    def test_a_turned_byte_in_a_page_is_told_by_its_column(self, read: Read, place: Path) -> None:
        pq.write_table(table(), place / "whole.parquet", write_page_checksum=True, compression="none")
        column = pq.read_metadata(place / "whole.parquet").row_group(0).column(2)
        raw = bytearray((place / "whole.parquet").read_bytes())
        raw[column.dictionary_page_offset + column.total_compressed_size - 9] ^= 1
        sentence = refused(read, bytes(raw), name="a.parquet")
        assert "(column 'x' in row group 1 of 1 is damaged: " in sentence

    def test_whichever_byte_is_turned_the_file_is_refused_or_its_cells_are_what_they_were(
        self, read: Read, place: Path
    ) -> None:
        pq.write_table(table(), place / "whole.parquet", write_page_checksum=True)
        whole, dice, told = (place / "whole.parquet").read_bytes(), random.Random(3), 0
        cells = [column.to_pylist() for column in table().columns]
        for _ in range(300):
            raw = bytearray(whole)
            raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
            try:
                [batch] = read(bytes(raw), name="a.parquet")
                assert [column.to_pylist() for column in batch.columns] == cells
            except DataRefused as error:
                assert "a.parquet" in str(error) and "\n" not in str(error)
                told += 1
        assert told > 150

    def test_text_that_is_none_is_refused_by_column_and_rows(self, read: Read) -> None:
        raw = pa.array([b"good", b"\xff\xfe", b"good"])
        assert "column 't' is not UTF-8 text between rows 1 and 3; deliver the file as UTF-8" in refused(
            read, pa.table({"t": raw})
        )

    def test_nested_columns_and_a_name_that_stands_twice_are_refused_by_name(self, read: Read) -> None:
        assert "Column 'l' of " in refused(read, pa.table({"l": [[1], [2]]}))
        twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
        assert "has column 'n' twice; deliver it with one name for one column" in refused(read, twice)


class TestFilesOfADay:
    def test_files_are_read_in_the_order_of_their_names_and_hidden_ones_are_not(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", ".c.csv", "d.txt"):
            (tmp_path / str(DAY)).mkdir(exist_ok=True)
            (tmp_path / str(DAY) / name).write_text(f"id\n{name}\n")
        source = files(tmp_path / "{day}" / "*.csv")
        assert [batch.column("id")[0].as_py() for batch in source.read_batches(DAY)] == ["a.csv", "b.csv"]
        digest = hashlib.sha256(b"id\na.csv\n").hexdigest()
        assert source.describe(DAY).split()[0] == f"file://{tmp_path}/{DAY}/a.csv?size=9&sha256={digest}"
        assert list(source.read_batches(date(2026, 8, 2))) == []

    def test_a_day_can_be_spelled_as_folders(self, tmp_path: Path) -> None:
        (tmp_path / "2026/08").mkdir(parents=True)
        (tmp_path / "2026/08/01.csv").write_text("id\n1\n")
        assert len(list(files(tmp_path / "{day:%Y/%m/%d}.csv").read_batches(DAY))) == 1

    @pytest.mark.parametrize("name", ["in [eu]", "in [!x]", "what?", "a*b"])
    def test_a_folder_that_is_there_is_no_wildcard_whatever_its_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{DAY} [1].csv").write_text("id\n1\n")
        for pattern in ("{day} [1].csv", "{day}*.csv", "../*/{day}*.csv"):
            assert len(list(files(tmp_path / name / pattern).read_batches(DAY))) == 1

    def test_brackets_are_wildcards_where_no_file_has_that_name(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            (tmp_path / f"{DAY}-{name}.csv").write_text(f"id\n{name}\n")
        batches = files(tmp_path / "{day}-[ab].csv").read_batches(DAY)
        assert [row["id"] for batch in batches for row in batch.to_pylist()] == ["a", "b"]

    def test_a_folder_that_is_gone_is_no_empty_day(self, tmp_path: Path) -> None:
        with pytest.raises(ServiceUnavailable, match=r"The folder .*/unmounted of source\.path is not there; mount"):
            list(files(tmp_path / "unmounted" / "{day}.csv").read_batches(DAY))

    def test_a_folder_in_place_of_a_file_is_told_with_the_pattern_for_it(self, tmp_path: Path) -> None:
        (tmp_path / f"{DAY}.parquet").mkdir()
        with pytest.raises(DataRefused, match=r"is a folder; name the files in it in source\.path, as .*/\*\.parquet"):
            list(files(tmp_path / "{day}.parquet").read_batches(DAY))

    def test_a_file_that_grows_while_it_is_read_is_read_again_later(self, tmp_path: Path) -> None:
        path = tmp_path / f"{DAY}.csv"
        path.write_text("id\n1\n")
        batches = files(tmp_path / "{day}.csv").read_batches(DAY)
        next(batches)
        path.write_text("id\n1\n2\n")
        with pytest.raises(Conflict, match="was still being written while it was read; deliver it by a rename"):
            list(batches)

    def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(self, tmp_path: Path) -> None:
        path = tmp_path / f"{DAY}.csv"
        path.write_text("id\n" + "1\n" * 200_000)
        batches = files(tmp_path / "{day}.csv").read_batches(DAY)
        first = next(batches).num_rows
        (tmp_path / "next").write_text("id\n7\n")
        (tmp_path / "next").rename(path)
        assert first + sum(batch.num_rows for batch in batches) == 200_000

    def test_a_checksum_beside_the_file_is_believed_more_than_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / f"{DAY}.csv"
        path.write_text("id\n1\n")
        (tmp_path / f"{DAY}.csv.sha256").write_text(f"{hashlib.sha256(b'id?1?').hexdigest()}  {DAY}.csv\n")
        source = files(tmp_path / "{day}.csv")
        with pytest.raises(DataRefused, match=r"is not the file 2026-08-01\.csv\.sha256 was written for"):
            list(source.read_batches(DAY))
        (tmp_path / f"{DAY}.csv.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()} *{DAY}.csv\n")
        assert len(list(source.read_batches(DAY))) == 1

    def test_many_files_are_described_as_one_list(self, tmp_path: Path) -> None:
        for number in range(delivered_files.MAX_NAMED_FILES + 1):
            (tmp_path / f"{DAY}-{number}.csv").write_text("id\n1\n")
        told = files(tmp_path / "{day}-*.csv").describe(DAY)
        assert told.startswith(f"{tmp_path}/{DAY}-*.csv?files=6&size=30&sha256=")
