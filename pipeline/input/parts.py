"""Cut the input rows into parts. A part never spans two files.

    part 0            part 1            part 2      part 3
    | part_rows rows  | part_rows rows  | the rest  | part_rows rows  | ...
    | first file                                    | second file

Parts depend on the input, data.where, data.limit and part_rows. If data.part_rows is null, the plan
chooses part_rows when the run begins (pipeline/plan/part_size.py). With data.part_minutes, the size
of the later parts also depends on how fast the first ones were (pipeline/plan/pace.py). Rows that
data.where leaves out may lie between a part's rows; they do not count towards part_rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.input.files import InputFile

MAX_OUTCOMES = 1 << 16
"""The most output rows of a joined part: a part stays in memory until it is written."""


@dataclass(frozen=True, slots=True)
class Part:
    """A fixed run of rows of one input file, and its one output file."""

    index: int
    file: int
    first_row: int
    num_read: int
    """How many rows of the file are read, from first_row on."""
    num_rows: int
    """How many of them data.where takes; without data.where, all of them."""
    num_outcomes: int
    """Output rows: one per sample of each row."""


def cut(
    files: list[InputFile], part_rows: int, limit: int | None, num_samples: int = 1
) -> list[Part]:
    """Cut all files, if data.where leaves out no row and every row has `num_samples` output rows.
    `limit` counts rows over all files."""
    parts: list[Part] = []
    left = sum(file.num_rows for file in files) if limit is None else limit
    for index, file in enumerate(files):
        num_rows = min(file.num_rows, left)
        left -= num_rows
        for first in range(0, num_rows, part_rows):
            size = min(part_rows, num_rows - first)
            parts.append(Part(len(parts), index, first, size, size, size * num_samples))
    return parts


def cut_counted(batches: Iterable[tuple[int, int, np.ndarray]], part_rows: int) -> list[Part]:
    """Cut rows that were counted one by one.

    Each batch is (file, first row, counts): `counts` holds the number of output rows of each row
    from the first row on, 0 for a row that is left out. Batches come in input order.
    """
    parts: list[Part] = []
    for file, first, counts in batches:
        for offset in np.flatnonzero(counts).tolist():
            last = parts[-1] if parts and parts[-1].file == file else None
            if last is None or last.num_rows == part_rows:
                start = 0 if last is None else last.first_row + last.num_read
                parts.append(Part(len(parts), file, start, 0, 0, 0))
            parts[-1] = _extended(parts[-1], first + offset, int(counts[offset]))
    return parts


def joined(parts: Sequence[Part], num_joined: int) -> list[Part]:
    """Merge consecutive parts of the same file: at most `num_joined` into one, and only while the
    merged part has at most MAX_OUTCOMES output rows."""
    made: list[Part] = []
    num_in_last = 0
    for part in parts:
        last = made[-1] if made and made[-1].file == part.file else None
        has_room = last is not None and last.num_outcomes + part.num_outcomes <= MAX_OUTCOMES
        if last is not None and has_room and num_in_last < num_joined:
            made[-1] = replace(
                last,
                num_read=last.num_read + part.num_read,
                num_rows=last.num_rows + part.num_rows,
                num_outcomes=last.num_outcomes + part.num_outcomes,
            )
            num_in_last += 1
        else:
            made.append(replace(part, index=parts[0].index + len(made)))
            num_in_last = 1
    return made


def _extended(part: Part, row: int, num_samples: int) -> Part:
    """The part with one more row; the rows between its old end and `row` are left out."""
    return replace(
        part,
        num_read=row + 1 - part.first_row,
        num_rows=part.num_rows + 1,
        num_outcomes=part.num_outcomes + num_samples,
    )
