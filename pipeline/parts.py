"""How is the input cut?

    part 0            part 1            part 2      part 3
    | part_rows rows  | part_rows rows  | the rest  | part_rows rows  | ...
    | first file                                    | second file

Parts depend on the input and on data.part_rows, never on the number of workers.
"""

from dataclasses import dataclass

from pipeline.inputs import InputFile


@dataclass(frozen=True, slots=True)
class Part:
    """A fixed run of rows of one input file, and its one output file."""

    index: int
    file: int
    first_row: int
    num_rows: int
    num_outcomes: int
    """Output rows: one for each sample of each row."""


def cut(
    files: list[InputFile], part_rows: int, limit: int | None, num_samples: int = 1
) -> list[Part]:
    """The parts of all files, if each row asks for `num_samples`."""
    parts: list[Part] = []
    left = sum(file.num_rows for file in files) if limit is None else limit
    for index, file in enumerate(files):
        num_rows = min(file.num_rows, left)
        left -= num_rows
        for first in range(0, num_rows, part_rows):
            size = min(part_rows, num_rows - first)
            parts.append(Part(len(parts), index, first, size, size * num_samples))
    return parts
