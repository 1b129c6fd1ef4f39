"""Cutting rows into parts: the result depends only on the input and the settings."""

import numpy as np
import pytest

from pipeline.input.files import InputFile
from pipeline.input.parts import Part, cut, cut_counted, joined


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
def test_each_part_is_a_run_of_one_file_and_the_limit_counts_over_all_files(
    num_rows: list[int], limit: int | None, parts: list[tuple[int, int, int]]
) -> None:
    wanted = [Part(index, *part, part[2], part[2] * 3) for index, part in enumerate(parts)]
    assert cut(files(*num_rows), 4, limit, num_samples=3) == wanted


def test_parts_are_joined_within_their_file_and_keep_the_same_rows() -> None:
    parts = cut(files(11, 3, 9), 2, None, num_samples=3)[1:]
    assert joined(parts, 3) == [
        Part(1, 0, 2, 6, 6, 18),
        Part(2, 0, 8, 3, 3, 9),
        Part(3, 1, 0, 3, 3, 9),
        Part(4, 2, 0, 6, 6, 18),
        Part(5, 2, 6, 3, 3, 9),
    ]
    assert joined(parts, 1) == parts
    assert joined([], 5) == []


def test_joined_parts_have_at_most_max_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MAX_OUTCOMES set to 7. A single part that has more is left as it is."""
    monkeypatch.setattr("pipeline.input.parts.MAX_OUTCOMES", 7)
    parts = [Part(i, 0, 2 * i, 2, 2, count) for i, count in enumerate([2, 4, 2, 9, 1, 6, 1])]
    assert [part.num_outcomes for part in joined(parts, 100)] == [6, 2, 9, 7, 1]


def test_joined_parts_span_the_rows_that_are_left_out_between_them() -> None:
    taken = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0])
    small = cut_counted([(0, 0, taken)], 1)
    assert joined(small, 2) == cut_counted([(0, 0, taken)], 2)
