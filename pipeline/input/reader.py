"""Read the rows of one part, only the columns needed, and give each row its id and its seeds.

A worker takes parts in ascending order, so a reader mostly moves forward in its file and is built
for that. It can go back, at the cost of reading again.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.request import derive_seed
from pipeline.input.errors import InputError, unreadable_is_an_error
from pipeline.input.files import InputFile, is_parquet
from pipeline.input.json_lines import open_text, parse_line
from pipeline.input.parts import Part
from pipeline.input.where import Where
from pipeline.run_folder.store import open_for_reading

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20
"""How much of each Parquet column is read from the file at a time."""


class Rows(Protocol):
    """One open input file."""

    def read(self, first: int, num_rows: int) -> pa.Table:
        """Rows first .. first+num_rows-1; fewer if the file ends before."""
        ...


class PartReader:
    """Reads the rows of parts: the columns of `schema`, the rows that `where` takes.

    It keeps the file that it read last open. Without `id_column`, a row's id is FILE:ROW.
    """

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
        """The part's rows, without those that data.where leaves out, and their ids.

        Raises:
            InputError: the file has changed since the plan was made, or cannot be read.
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
                f"data.path={file.path}: of the {part.num_read} rows from row {part.first_row} on, "
                f"the plan takes {part.num_rows}, but now {rows.num_rows} would be taken; the file "
                "was changed after the plan was made: restore it"
            )
        return rows, ids

    def rows(self, file: int, first: int, num_rows: int) -> pa.Table:
        """`num_rows` consecutive rows of a file, whether data.where takes them or not.

        Raises:
            InputError: the file ends too early, or cannot be read.
        """
        input_file = self._files[file]
        with unreadable_is_an_error(input_file.path):
            if self._open is None or self._open[0] != input_file:
                kind = ParquetRows if is_parquet(input_file.path) else JsonRows
                self._open = (input_file, kind(input_file.path, self._schema))
            table = self._open[1].read(first, num_rows)
        if table.num_rows != num_rows:
            raise InputError(
                f"data.path={input_file.path}: ends before row {first + num_rows}; it was changed "
                f"after the plan was made, when it had {input_file.num_rows} rows: restore it"
            )
        return table


def ids_of(column: pa.ChunkedArray) -> list[str]:
    """A column of ids as text; nulls become None."""
    ids: list[str] = column.cast(pa.string()).to_pylist()
    return ids


def seed_of(run_seed: int, row_id: str, sample_index: int) -> int:
    """A 63-bit seed that depends on these three values alone."""
    return derive_seed(run_seed, row_id, sample_index)


def seed_of_sample(row_seed: int, sample_index: int) -> int:
    """The seed of a sample of a row with its own seed: the first sample has the row's seed."""
    return row_seed if sample_index == 0 else derive_seed(row_seed, sample_index)


class ParquetRows:
    """Streams a Parquet file in batches of at most BATCH_ROWS rows, to bound memory use.

    A read continues the current stream if it can. To go back, or to skip whole row groups, it
    starts a new stream at the row group that holds the first row.
    """

    def __init__(self, path: str, schema: pa.Schema) -> None:
        raw = open_for_reading(path)
        self._file = pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES)
        self._schema = schema
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._next_row = 0
        """The row of the file that follows the last batch read."""
        self._leftover: pa.RecordBatch | None = None
        """The end of the last batch: read from the file, but not returned yet."""

    def read(self, first: int, num_rows: int) -> pa.Table:
        group = int(np.searchsorted(self._starts, first, "right")) - 1
        can_continue = self._leftover_row <= first and self._starts[group] <= self._next_row
        if self._batches is None or not can_continue:
            self._batches = self._batches_from(group)
        pieces, num_missing = [], num_rows
        while num_missing and (batch := self._next_batch()) is not None:
            batch_row = self._next_row - batch.num_rows
            skip = min(max(first - batch_row, 0), batch.num_rows)
            piece = batch.slice(skip, num_missing)
            if piece.num_rows:
                pieces.append(piece)
            first, num_missing = first + piece.num_rows, num_missing - piece.num_rows
            self._leftover = batch.slice(skip + piece.num_rows)
        if not pieces:
            return self._schema.empty_table()
        table = pa.Table.from_batches(pieces).select(self._schema.names)
        return table.cast(self._schema)

    @property
    def _leftover_row(self) -> int:
        """The first row that the current stream can still return."""
        return self._next_row - (self._leftover.num_rows if self._leftover is not None else 0)

    def _batches_from(self, group: int) -> Iterator[pa.RecordBatch]:
        """Start a new stream at the first row of a row group."""
        self._next_row, self._leftover = int(self._starts[group]), None
        groups = list(range(group, len(self._starts) - 1))
        names = self._schema.names
        return iter(
            self._file.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)
        )

    def _next_batch(self) -> pa.RecordBatch | None:
        """The leftover if there is one, else a new batch; None at the end of the file."""
        if self._leftover is not None and self._leftover.num_rows:
            return self._leftover
        assert self._batches is not None, "read() starts a stream before it asks for a batch"
        batch = next(self._batches, None)
        if batch is not None:
            self._next_row += batch.num_rows
        return batch


class JsonRows:
    """Streams a JSON Lines file, gzipped or not; to go back it opens the file again."""

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
