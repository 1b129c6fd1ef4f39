"""The rows of one part: read forward, only the columns needed, each row with its id and its seeds.

Workers draw parts in ascending order, so a reader only moves forward in its file.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.errors import InputError, unreadable_is_an_error
from pipeline.input.files import InputFile, is_parquet
from pipeline.input.json_lines import open_text, parse_line
from pipeline.input.parts import Part
from pipeline.input.where import Where
from pipeline.run_folder.store import open_for_reading

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20
"""Of each column that is read from a file at a time."""


class Rows(Protocol):
    """One open file."""

    def read(self, first: int, num_rows: int) -> pa.Table:
        """Rows first .. first+num_rows-1, fewer where the file ends."""
        ...


class PartReader:
    """Reads these columns of the parts of these files; keeps the file of the last one open."""

    def __init__(
        self,
        files: list[InputFile],
        schema: pa.Schema,
        where: Where | None = None,
        id_column: str | None = None,
    ) -> None:
        self._files = files
        self._schema = schema
        self._where = where
        self._id_column = id_column
        self._open: tuple[InputFile, Rows] | None = None

    def read(self, part: Part) -> tuple[pa.Table, list[str]]:
        """The part's rows, those that data.where takes, and their ids.

        Raises:
            InputError: the file is no longer what the plan saw.
        """
        rows, file = self.rows(part.file, part.first_row, part.num_read), self._files[part.file]
        numbers = np.arange(part.first_row, part.first_row + part.num_read)
        if self._where is not None:
            taken = self._where.takes(rows)
            rows, numbers = rows.filter(taken), numbers[taken]
        if self._id_column is None:
            ids = [f"{file.name}:{number}" for number in numbers]
        else:
            ids = ids_of(rows[self._id_column])
        if rows.num_rows != part.num_rows or None in ids:
            raise InputError(
                f"data.path={file.path}: of the {part.num_read} rows from row {part.first_row} on "
                f"{part.num_rows} were to be taken, and now it is {rows.num_rows}; it was changed "
                "after the plan was made: restore it"
            )
        return rows, ids

    def rows(self, file: int, first: int, num_rows: int) -> pa.Table:
        """
        Raises:
            InputError: the file ends before, or cannot be read.
        """
        of = self._files[file]
        with unreadable_is_an_error(of.path):
            if self._open is None or self._open[0] != of:
                kind = ParquetRows if is_parquet(of.path) else JsonRows
                self._open = (of, kind(of.path, self._schema))
            table = self._open[1].read(first, num_rows)
        if table.num_rows != num_rows:
            raise InputError(
                f"data.path={of.path}: ends before row {first + num_rows}; it was changed after "
                f"the plan was made, with {of.num_rows} rows: restore it"
            )
        return table


def ids_of(column: pa.ChunkedArray) -> list[str]:
    """A column of ids as text; null stays null."""
    ids: list[str] = column.cast(pa.string()).to_pylist()
    return ids


def seed_of(run_seed: int, row_id: str, sample_index: int) -> int:
    """A seed of 63 bits that depends on nothing else."""
    return _hash(f"{run_seed}/{row_id}/{sample_index}")


def seed_of_sample(row_seed: int, sample_index: int) -> int:
    """Of a row with a seed of its own: the first sample has that very seed."""
    return row_seed if sample_index == 0 else _hash(f"{row_seed}/{sample_index}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class ParquetRows:
    """Streams through the row groups from the one that holds the first row wanted, so that no more
    than BATCH_ROWS rows are in memory; starts again where it has to go back, or may pass over whole
    groups."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        raw = open_for_reading(path)
        self._file = pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES)
        self._schema = schema
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._next_row = 0
        """Of the file, behind what was read."""
        self._left: pa.RecordBatch | None = None
        """What was read and not asked for yet."""

    def read(self, first: int, num_rows: int) -> pa.Table:
        group = int(np.searchsorted(self._starts, first, "right")) - 1
        goes_on = self._first_left <= first and self._starts[group] <= self._next_row
        if self._batches is None or not goes_on:
            self._batches = self._from(group)
        pieces, wanted = [], num_rows
        while wanted and (batch := self._batch()) is not None:
            at = self._next_row - batch.num_rows
            skip = min(max(first - at, 0), batch.num_rows)
            piece = batch.slice(skip, wanted)
            if piece.num_rows:
                pieces.append(piece)
            first, wanted = first + piece.num_rows, wanted - piece.num_rows
            self._left = batch.slice(skip + piece.num_rows)
        if not pieces:
            return self._schema.empty_table()
        table = pa.Table.from_batches(pieces).select(self._schema.names)
        return table.cast(self._schema)

    @property
    def _first_left(self) -> int:
        return self._next_row - (self._left.num_rows if self._left is not None else 0)

    def _from(self, group: int) -> Iterator[pa.RecordBatch]:
        """Batches from the beginning of a row group on."""
        self._next_row, self._left = int(self._starts[group]), None
        groups = list(range(group, len(self._starts) - 1))
        names = self._schema.names
        return iter(
            self._file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)
        )

    def _batch(self) -> pa.RecordBatch | None:
        if self._left is not None and self._left.num_rows:
            return self._left
        assert self._batches is not None, "nothing is read before a row group is chosen"
        batch = next(self._batches, None)
        if batch is not None:
            self._next_row += batch.num_rows
        return batch


class JsonRows:
    """Keeps its place in the file; opens it again where it has to go back."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._next_row = 0
        self._lines = self._numbered_lines()

    def read(self, first: int, num_rows: int) -> pa.Table:
        if first < self._next_row:
            self._next_row, self._lines = 0, self._numbered_lines()
        for _ in islice(self._lines, first - self._next_row):
            pass
        numbered = islice(self._lines, num_rows)
        rows = [parse_line(line, self._path, number) for number, line in numbered]
        self._next_row = first + len(rows)
        columns = [
            pa.array([row.get(field.name) for row in rows], field.type) for field in self._schema
        ]
        return pa.table(columns, schema=self._schema)

    def _numbered_lines(self) -> Iterator[tuple[int, str]]:
        lines = enumerate(open_text(self._path), 1)
        return ((number, line) for number, line in lines if line.strip())
