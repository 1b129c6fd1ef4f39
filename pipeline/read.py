"""The rows of one part: read forward, only the columns needed, each row with its id and its seeds.

Workers draw parts in ascending order, so a reader only moves forward in its file.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.inputs import (
    InputError,
    InputFile,
    is_parquet,
    open_text,
    parse_line,
    unreadable_is_an_error,
)
from pipeline.parts import Part


class Rows(Protocol):
    """One open file."""

    def read(self, first: int, num_rows: int) -> pa.Table:
        """Rows first .. first+num_rows-1, fewer where the file ends."""
        ...


class PartReader:
    """Reads these columns of the parts of these files; keeps the file of the last one open."""

    def __init__(self, files: list[InputFile], schema: pa.Schema) -> None:
        self._files = files
        self._schema = schema
        self._open: tuple[InputFile, Rows] | None = None

    def read(self, part: Part) -> pa.Table:
        """The part's rows.

        Raises:
            InputError: the file is no longer what the plan saw.
        """
        file = self._files[part.file]
        with unreadable_is_an_error(file.path):
            if self._open is None or self._open[0] != file:
                rows = ParquetRows if is_parquet(file.path) else JsonRows
                self._open = (file, rows(file.path, self._schema))
            table = self._open[1].read(part.first_row, part.num_rows)
        if table.num_rows != part.num_rows:
            raise InputError(
                f"data.path={file.path}: ends before row {part.first_row + part.num_rows}; it was "
                f"changed after the plan was made, with {file.num_rows} rows: restore it"
            )
        return table

    def row_ids(self, part: Part) -> list[str]:
        """FILE:ROW, the same for ever."""
        name = self._files[part.file].name
        return [f"{name}:{part.first_row + i}" for i in range(part.num_rows)]


def seed_of(run_seed: int, row_id: str, sample_index: int) -> int:
    """A seed of 63 bits that depends on nothing else."""
    return _hash(f"{run_seed}/{row_id}/{sample_index}")


def seed_of_sample(row_seed: int, sample_index: int) -> int:
    """Of a row with a seed of its own: the first sample has that very seed."""
    return row_seed if sample_index == 0 else _hash(f"{row_seed}/{sample_index}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class ParquetRows:
    """Keeps the row group of the last read, since a part is mostly smaller than a row group."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._file = pq.ParquetFile(fsspec.open(path, "rb").open())
        self._schema = schema
        self._group: tuple[int, pa.Table] | None = None

    def read(self, first: int, num_rows: int) -> pa.Table:
        pieces, start, metadata = [], 0, self._file.metadata
        for group in range(metadata.num_row_groups):
            end = start + metadata.row_group(group).num_rows
            if start < first + num_rows and first < end:
                skip = max(first - start, 0)
                wanted = min(first + num_rows, end) - start - skip
                pieces.append(self._read_group(group).slice(skip, wanted))
            start = end
        return pa.concat_tables(pieces) if pieces else self._schema.empty_table()

    def _read_group(self, group: int) -> pa.Table:
        if self._group is None or self._group[0] != group:
            table = self._file.read_row_group(group, columns=self._schema.names)
            self._group = (group, table.select(self._schema.names).cast(self._schema))
        return self._group[1]


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
