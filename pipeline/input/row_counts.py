"""Count the output rows of each input row: 0 for a row that is left out, else its samples.

The plan needs these counts to cut parts. When they depend on the data (data.where, override
columns), or when ids must be checked for duplicates, the columns concerned are read once, while the
plan is made.
"""

from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.input.errors import InputError
from pipeline.input.files import InputFile
from pipeline.input.reader import PartReader, ids_of, takes
from pipeline.input.row_settings import SettingsReader
from pipeline.input.utf8 import with_valid_utf8
from pipeline.input.where import Where

BATCH_ROWS = 1 << 16

Counts = tuple[int, int, np.ndarray]
"""(index of the file, first row, counts): the number of output rows of each row from the first row
on; 0 for a row that is left out."""


def count_rows(
    files: list[InputFile],
    schema: pa.Schema,
    *,
    settings_reader: SettingsReader,
    where: Where | None,
    id_column: str | None,
    limit: int | None,
) -> Iterator[Counts]:
    """Count the rows in input order until `limit` rows are taken.

    `schema` has the columns that the counts depend on, and the id column. Ids of the rows taken are
    checked too.

    Raises:
        InputError: a row's id is null, or two rows have the same id.
    """
    ids = None if id_column is None else Ids(files, schema.field(id_column))
    reader, num_left = PartReader(files, schema), limit
    for file, input_file in enumerate(files):
        for first in range(0, input_file.num_rows, BATCH_ROWS):
            if num_left == 0:
                break
            rows = reader.rows(file, first, min(BATCH_ROWS, input_file.num_rows - first))
            counts = _samples(rows, settings_reader)
            counts *= takes(rows, input_file, where)
            if num_left is not None:
                counts[np.cumsum(counts > 0) > num_left] = 0
                num_left -= int(np.count_nonzero(counts))
            if ids is not None and id_column is not None:
                ids.add(rows[id_column], file, first, np.flatnonzero(counts))
            yield file, first, counts
    if ids is not None:
        ids.check()


class Ids:
    """Checks that no id is null and no two rows have the same id.

    Keeps only a hash of each id; rows whose hashes collide are read again to compare their ids.
    """

    def __init__(self, files: list[InputFile], field: pa.Field) -> None:
        self._files = files
        self._field = field
        self._hashes: list[pl.Series] = []
        self._rows: list[np.ndarray] = []
        """For each batch of hashes, an array of (file, row) pairs."""

    def add(self, column: pa.ChunkedArray, file: int, first: int, taken: np.ndarray) -> None:
        """Add the ids of the rows taken; `taken` are their indices in `column`.

        Raises:
            InputError: one of these ids is null, or not valid text.
        """
        ids = column.take(taken)
        if ids.null_count:
            self._refuse("null", first + int(taken[ids.is_null().to_numpy().argmax()]), file)
        _, wrong = with_valid_utf8(pa.table([ids], names=[self._field.name]))
        if wrong:
            self._refuse("not valid UTF-8", first + int(taken[wrong[self._field.name][0]]), file)
        self._hashes.append(pl.Series(ids_of(ids), dtype=pl.String).hash())
        rows = first + taken
        self._rows.append(np.stack([np.full_like(rows, file), rows], axis=1))

    def _refuse(self, what: str, row: int, file: int) -> NoReturn:
        raise InputError(
            f"data.id_column={self._field.name!r}: {what} in row {row} of "
            f"{self._files[file].path}; give every row an id, or set data.id_column=null"
        )

    def check(self) -> None:
        """
        Raises:
            InputError: two rows have the same id.
        """
        if not self._hashes:
            return
        hashes = pl.concat(self._hashes)
        suspects = np.flatnonzero(hashes.is_duplicated().to_numpy())
        rows, seen = np.concatenate(self._rows)[suspects].tolist(), dict[str, tuple[int, int]]()
        reader = PartReader(self._files, pa.schema([self._field]))
        for file, row in rows:
            (row_id,) = ids_of(reader.rows(file, row, 1)[self._field.name])
            if row_id in seen:  # equal ids, not only equal hashes
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
    settings = settings_reader.read(rows)
    return np.array([of_row.num_samples for of_row in settings], dtype=np.int64)
