"""Read the rows of one part, only the columns needed, and give each row its id and its seeds.

A worker takes parts in ascending order, so a reader mostly moves forward in its file and is built
for that. It can go back, at the cost of reading again.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.request import derive_seed
from pipeline.input.casting import cast
from pipeline.input.errors import InputError, first_line, unreadable_is_an_error
from pipeline.input.files import InputFile
from pipeline.input.json_kinds import Unparsed
from pipeline.input.json_lines import Line, json_text, parse_line, read_lines
from pipeline.input.listing import is_parquet
from pipeline.input.parts import Part
from pipeline.input.types import has_nested_dictionary, is_text_dictionary
from pipeline.input.utf8 import from_surrogates
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


class PartRows(NamedTuple):
    rows: pa.Table
    ids: list[str]
    numbers: list[int]
    """Each row's number in its file: 0 is the first."""


class PartReader:
    """Reads the rows of parts: the columns of `schema`, the rows that `where` takes.

    It keeps the file that it read last open. Without `id_column`, a row's id is FILE:ROW, or, in
    the output of an earlier run, its id there.
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

    def read(self, part: Part) -> PartRows:
        """The part's rows, without those that are left out, and their ids.

        Raises:
            InputError: the file has changed since the plan was made, or cannot be read.
        """
        rows, file = self.rows(part.file, part.first_row, part.num_read), self._files[part.file]
        taken = takes(rows, file, self._where)
        numbers: list[int] = (part.first_row + np.flatnonzero(taken)).tolist()
        rows = rows if taken.all() else rows.filter(taken)
        changed = "the file was changed after the plan was made: restore it"
        if rows.num_rows != part.num_rows:
            raise InputError(
                f"data.path={file.path}: of the {part.num_read} rows from row {part.first_row} on, "
                f"the plan takes {part.num_rows}, but now {rows.num_rows} would be taken; {changed}"
            )
        if self._id_column is not None:
            ids = ids_of(rows[self._id_column])
        elif file.run is not None:
            ids = file.run.ids(rows)
        else:
            ids = [f"{file.name}:{number}" for number in numbers]
        if None in ids:
            null = next(
                number for number, row_id in zip(numbers, ids, strict=True) if row_id is None
            )
            raise InputError(
                f"data.id_column={self._id_column!r}: now null in row {null} of {file.path}; "
                f"{changed}"
            )
        return PartRows(rows, ids, numbers)

    def rows(self, file: int, first: int, num_rows: int) -> pa.Table:
        """`num_rows` consecutive rows of a file, whether data.where takes them or not.

        Raises:
            InputError: the file ends too early, or cannot be read.
        """
        input_file = self._files[file]
        keys = {
            name: value for name, value in input_file.keys.items() if name in self._schema.names
        }
        with unreadable_is_an_error(input_file.path):
            if self._open is None or self._open[0] is not input_file:
                kind = ParquetRows if is_parquet(input_file.path) else JsonRows
                own = pa.schema([its for its in self._schema if its.name not in keys])
                self._open = (input_file, kind(input_file.path, own))
            table = self._open[1].read(first, num_rows)
        if table.num_rows != num_rows:
            raise InputError(
                f"data.path={input_file.path}: ends before row {first + num_rows}; it was changed "
                f"after the plan was made, when it had {input_file.num_rows} rows: restore it"
            )
        for name, value in keys.items():
            kind = self._schema.field(name).type
            table = table.append_column(name, pa.array([value] * num_rows, pa.string()).cast(kind))
        return table.select(self._schema.names) if keys else table


def takes(rows: pa.Table, file: InputFile, where: Where | None) -> np.ndarray:
    """One bool per row: whether it is taken. Failed rows of an earlier run are not."""
    taken = np.ones(rows.num_rows, bool) if where is None else where.takes(rows)
    return taken if file.run is None else taken & np.array(file.run.takes(rows), bool)


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
        # Without `read_dictionary`, Arrow makes dictionaries by a cast that refuses the whole batch
        # for one text that is not UTF-8.
        texts = [its.name for its in schema if is_text_dictionary(its.type)]
        self._file = pq.ParquetFile(
            raw, pre_buffer=False, buffer_size=BUFFER_BYTES, read_dictionary=texts
        )
        self._path = path
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
        table = pa.Table.from_batches(pieces)
        if not self._schema.names:  # only the number of rows is asked for
            return table.select([])
        columns = [_cast(table, field, self._path) for field in self._schema]
        return pa.table(columns, schema=self._schema)

    @property
    def _leftover_row(self) -> int:
        """The first row that the current stream can still return."""
        return self._next_row - (self._leftover.num_rows if self._leftover is not None else 0)

    def _batches_from(self, group: int) -> Iterator[pa.RecordBatch]:
        """Start a new stream at the first row of a row group."""
        self._next_row, self._leftover = int(self._starts[group]), None
        groups = list(range(group, len(self._starts) - 1))
        kinds = [its.type for its in self._file.schema_arrow if its.name in self._schema.names]
        # Arrow cannot read a dictionary inside a list or struct over the end of a row group.
        is_single = any(has_nested_dictionary(kind) for kind in kinds)
        return chain.from_iterable(
            self._file.iter_batches(
                BATCH_ROWS, row_groups=its, columns=self._schema.names, use_threads=False
            )
            for its in ([[group] for group in groups] if is_single else [groups])
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
    """Streams a JSON Lines file; to go back it opens the file again."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._next_row = 0
        self._lines = read_lines(path)

    def read(self, first: int, num_rows: int) -> pa.Table:
        if first < self._next_row:
            self._next_row, self._lines = 0, read_lines(self._path)
        for _ in islice(self._lines, first - self._next_row):
            pass
        lines = list(islice(self._lines, num_rows))
        rows = [parse_line(line, self._path) for line in lines]
        self._next_row = first + len(rows)
        if not self._schema.names:  # only the number of rows is asked for
            return pa.table({"": pa.nulls(len(rows))}).select([])
        columns = [
            self._column(field, [row.get(field.name) for row in rows], lines)
            for field in self._schema
        ]
        return pa.table(columns, schema=self._schema)

    def _column(self, field: pa.Field, values: list[Any], lines: list[Line]) -> pa.Array:
        """
        Raises:
            InputError: a value is not of the column's type.
        """
        if field.type == pa.string():  # objects in it are kept as JSON text
            values = [
                value if value is None or isinstance(value, str) else _text_of(field, value, line)
                for value, line in zip(values, lines, strict=True)
            ]
        try:
            return pa.array(values, field.type)
        except UnicodeEncodeError:
            return from_surrogates(values, field.type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"data.path={self._path}: column {field.name!r} of lines {lines[0].number} to "
                f"{lines[-1].number} is not of type {field.type} ({first_line(error)}), as it was "
                "when the plan was made: restore the file"
            ) from error


def _text_of(field: pa.Field, value: Any, line: Line) -> Any:
    """An object or list as JSON text. Any other value is not of the column's type."""
    is_text = isinstance(value, dict | list | Unparsed)
    return json_text(field.name, value, line) if is_text else value


def _cast(table: pa.Table, field: pa.Field, path: str) -> pa.ChunkedArray:
    """One column of a file, as the type that it has in all files.

    Raises:
        InputError: the column is gone, or a value does not fit.
    """
    if field.name not in table.column_names:
        raise InputError(
            f"data.path={path}: has no column {field.name!r} now; it was changed after the plan "
            "was made: restore it"
        )
    column = table[field.name]
    try:
        return column if column.type.equals(field.type) else cast(column, field.type)
    except pa.ArrowException as error:
        raise InputError(
            f"data.path={path}: column {field.name!r} of type {column.type} cannot be read as "
            f"{field.type} ({first_line(error)}); make the files alike, or leave the column out "
            "with data.carry=[...]"
        ) from error
