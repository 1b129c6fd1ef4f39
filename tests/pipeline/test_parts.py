"""Cutting: parts depend on the input and the settings alone."""

import pytest

from pipeline.inputs import InputFile
from pipeline.parts import Part, cut


def files(*num_rows: int) -> list[InputFile]:
    return [
        InputFile(path=f"{i}", name=f"{i}", num_rows=n, digest="") for i, n in enumerate(num_rows)
    ]


@pytest.mark.parametrize(
    ("num_rows", "limit", "parts"),
    [
        ([10, 0, 4], None, [(0, 0, 4), (0, 4, 4), (0, 8, 2), (2, 0, 4)]),
        ([10, 4], 9, [(0, 0, 4), (0, 4, 4), (0, 8, 1)]),
        ([10, 4], 12, [(0, 0, 4), (0, 4, 4), (0, 8, 2), (1, 0, 2)]),
        ([3], 99, [(0, 0, 3)]),
        ([0], None, []),
    ],
)
def test_parts_are_runs_of_one_file_and_the_limit_counts_over_files(
    num_rows: list[int], limit: int | None, parts: list[tuple[int, int, int]]
) -> None:
    wanted = [Part(index, *part, part[2], part[2] * 3) for index, part in enumerate(parts)]
    assert cut(files(*num_rows), 4, limit, num_samples=3) == wanted
