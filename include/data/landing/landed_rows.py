"""The rows of a day where they were landed: in one file, or in one a part. Whoever reads them sees no difference.

A fragment (Arrow's word) is what was delivered together. Batches never reach over its end, so the same day is read in
the same batches wherever its parts lie, and what is made of them, to the last bit of a sum and the last byte of a file,
is the same too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from include.data.landing.landing import Landing, land


@dataclass(frozen=True)
class Fragment:
    """Row groups of a Parquet file that follow each other."""

    path: Path
    groups: range


@dataclass(frozen=True)
class LandedRows:
    """Fragments of one schema, one at least, in the order of delivery."""

    fragments: tuple[Fragment, ...]

    @classmethod
    def build_from_file(cls, path: Path) -> LandedRows:
        """All rows of a file, as one fragment."""
        with _open_parquet(path) as file:
            return cls((Fragment(path, range(file.num_row_groups)),))

    @classmethod
    def build_from_landing(cls, landing: Landing) -> LandedRows:
        return cls(tuple(Fragment(landing.path, groups) for groups in landing.parts if groups))

    @cached_property
    def schema(self) -> pa.Schema:
        with _open_parquet(self.fragments[0].path) as file:
            return file.schema_arrow

    @cached_property
    def count(self) -> int:
        return sum(
            file.metadata.row_group(number).num_rows for each, file in self.open_fragments() for number in each.groups
        )

    def open_fragments(self) -> Iterator[tuple[Fragment, pq.ParquetFile]]:
        """Each fragment with its file, which is open until the next one is asked for."""
        path, file = None, None
        for each in self.fragments:
            if file is None or each.path != path:
                if file is not None:
                    file.close()
                path, file = each.path, _open_parquet(each.path)
            yield each, file
        if file is not None:
            file.close()

    def read_batches(self, columns: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """These columns of all rows, at most `size` rows at a time."""
        for part in self.read_fragments(columns, size):
            yield from part

    def read_fragments(self, columns: Sequence[str], size: int) -> Iterator[Iterator[pa.RecordBatch]]:
        """The same a fragment, each to be read before the next one is asked for, or not at all."""
        for each, file in self.open_fragments():
            yield file.iter_batches(batch_size=size, columns=list(columns), row_groups=list(each.groups))

    def read_head(self, count: int) -> pa.Table:
        """The first `count` rows, or as many as there are."""
        taken: list[pa.RecordBatch] = []
        for batch in self.read_batches(self.schema.names, count):
            taken.append(batch)
            if sum(each.num_rows for each in taken) >= count:
                break
        return pa.Table.from_batches(taken, self.schema).slice(0, count)

    def ensure_file(self, directory: Path) -> Path:
        """All rows in one file: theirs, if they have one, else one that is written into `directory`, an empty one.

        Its bytes are those that landing all parts into one file would have given.
        """
        paths = {each.path for each in self.fragments}
        if len(paths) == 1:
            return paths.pop()
        landed = land(self.read_row_groups(), directory)
        assert landed is not None
        return landed.path

    def read_row_groups(self) -> Iterator[pa.RecordBatch]:
        """The batches that were landed."""
        for each, file in self.open_fragments():
            for number in each.groups:
                rows = file.metadata.row_group(number).num_rows
                yield from file.iter_batches(batch_size=rows, row_groups=[number])


def _open_parquet(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, pre_buffer=False)  # pre-buffering keeps every row group it has read
