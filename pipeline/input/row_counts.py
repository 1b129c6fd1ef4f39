"""Which rows does the job take, and how many output rows has each? Where the job's settings alone
do not tell, the columns that do are read, once, when the plan is made.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.input.errors import InputError
from pipeline.input.files import InputFile
from pipeline.input.reader import PartReader, ids_of
from pipeline.input.row_settings import SettingsReader
from pipeline.input.where import Where

BATCH_ROWS = 1 << 16

Counts = tuple[int, int, np.ndarray]
"""A file, its first row that was looked at, and the output rows of it and those behind it; 0 of one
that is left out."""


def count_rows(
    files: list[InputFile],
    schema: pa.Schema,
    *,
    settings_reader: SettingsReader,
    where: Where | None,
    id_column: str | None,
    limit: int | None,
) -> Iterator[Counts]:
    """All rows, in the order of the input, until `limit` were taken; `schema` has the columns that
    this depends on.

    Raises:
        InputError: the row of an id is null, or two rows have the same.
    """
    ids = None if id_column is None else Ids(files, schema.field(id_column))
    reader, left = PartReader(files, schema), limit
    for file, of_file in enumerate(files):
        for first in range(0, of_file.num_rows, BATCH_ROWS):
            if left == 0:
                break
            rows = reader.rows(file, first, min(BATCH_ROWS, of_file.num_rows - first))
            counts = _samples(rows, settings_reader)
            if where is not None:
                counts *= where.takes(rows)
            if left is not None:
                counts[np.cumsum(counts > 0) > left] = 0
                left -= int(np.count_nonzero(counts))
            if ids is not None and id_column is not None:
                ids.add(rows[id_column], file, first, np.flatnonzero(counts))
            yield file, first, counts
    if ids is not None:
        ids.check()


class Ids:
    """The ids of all rows, as hashes: are they all there, and no two the same?"""

    def __init__(self, files: list[InputFile], field: pa.Field) -> None:
        self._files = files
        self._field = field
        self._hashes: list[pl.Series] = []
        self._rows: list[np.ndarray] = []
        """(file, row) of each."""

    def add(self, column: pa.ChunkedArray, file: int, first: int, taken: np.ndarray) -> None:
        ids = column.take(taken)
        if ids.null_count:
            row = first + int(taken[ids.is_null().to_numpy().argmax()])
            raise InputError(
                f"data.id_column={self._field.name!r}: null in row {row} of "
                f"{self._files[file].path}; give every row an id, or data.id_column=null"
            )
        self._hashes.append(pl.Series(ids_of(ids), dtype=pl.String).hash())
        rows = first + taken
        self._rows.append(np.stack([np.full_like(rows, file), rows], axis=1))

    def check(self) -> None:
        if not self._hashes:
            return
        hashes = pl.concat(self._hashes)
        suspects = np.flatnonzero(hashes.is_duplicated().to_numpy())
        rows, seen = np.concatenate(self._rows)[suspects].tolist(), dict[str, tuple[int, int]]()
        reader = PartReader(self._files, pa.schema([self._field]))
        for file, row in rows:
            (row_id,) = ids_of(reader.rows(file, row, 1)[self._field.name])
            if row_id in seen:  # and not only its hash
                places = (
                    f"row {row} of {self._files[f].path}" for f, row in (seen[row_id], (file, row))
                )
                raise InputError(
                    f"data.id_column={self._field.name!r}: {' and '.join(places)} have the same "
                    f"id {row_id!r}; make ids unique, or set data.id_column=null"
                )
            seen[row_id] = (file, row)


def _samples(rows: pa.Table, settings_reader: SettingsReader) -> np.ndarray:
    if not settings_reader.needs_count:
        return np.full(rows.num_rows, settings_reader.num_samples)
    return np.array([asked.num_samples for asked in settings_reader.read(rows)], dtype=np.int64)
