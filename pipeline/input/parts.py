"""How is the input cut?

    part 0            part 1            part 2      part 3
    | part_rows rows  | part_rows rows  | the rest  | part_rows rows  | ...
    | first file                                    | second file

Parts depend on the input, data.where and data.part_rows, never on the number of workers (and with
data.part_minutes on the speed of the first ones, pipeline/plan/pace.py). Rows that
data.where leaves out lie between a part's rows and are not counted among them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.input.files import InputFile

MAX_OUTCOMES = 1 << 16
"""Of a joined part, however fast it would be: all its rows are in memory until it is written."""


@dataclass(frozen=True, slots=True)
class Part:
    """A fixed run of rows of one input file, and its one output file."""

    index: int
    file: int
    first_row: int
    num_read: int
    """Rows of the file from first_row on."""
    num_rows: int
    """Those of them that data.where takes; all without it."""
    num_outcomes: int
    """Output rows: one for each sample of each row."""


def cut(
    files: list[InputFile], part_rows: int, limit: int | None, num_samples: int = 1
) -> list[Part]:
    """The parts of all files, if every row is taken and asks for `num_samples`."""
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
    """The parts of rows that were looked at: each batch is (file, its first row, output rows of
    each row, 0 for one that is left out), in the order of the input."""
    parts: list[Part] = []
    for file, first, counts in batches:
        for place in np.flatnonzero(counts).tolist():
            last = parts[-1] if parts and parts[-1].file == file else None
            if last is None or last.num_rows == part_rows:
                start = 0 if last is None else last.first_row + last.num_read
                parts.append(Part(len(parts), file, start, 0, 0, 0))
            parts[-1] = _with(parts[-1], first + place, int(counts[place]))
    return parts


def joined(parts: Sequence[Part], num_joined: int) -> list[Part]:
    """The same rows in fewer parts, each of up to `num_joined` neighbours in one file that have no
    more than MAX_OUTCOMES output rows together."""
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


def _with(part: Part, row: int, num_samples: int) -> Part:
    return replace(
        part,
        num_read=row + 1 - part.first_row,
        num_rows=part.num_rows + 1,
        num_outcomes=part.num_outcomes + num_samples,
    )
