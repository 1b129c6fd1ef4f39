"""Paired statistics against values computed by hand, and edit distance against the plain table."""

import math
import random
from itertools import product

import pytest

from pipeline.stats.distance import edit_distance, relative_distance
from pipeline.stats.paired import exact_p, mean_of, paired


def test_a_mean_and_its_standard_error() -> None:
    mean = mean_of([1, 0, 1, 1])
    # Sum of squares about 0.75: 3 * 0.0625 + 0.5625 = 0.75; variance 0.25; over 4 prompts 0.0625.
    assert (mean.value, mean.se, mean.num) == (0.75, 0.25, 4)
    assert mean_of([0.5]).se is None


def test_pairs_by_hand() -> None:
    first, second = [1, 1, 1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1, 0, 0]
    found = paired(first, second)
    # Differences 0 -1 -1 1 0 0 -1 0: mean -2/8, sum of squares 4 - 8/16 = 3.5, variance 0.5.
    assert found.difference == -0.25
    assert found.se == pytest.approx(math.sqrt(0.5 / 8))
    assert (found.num_better, found.num_worse, found.num) == (1, 3, 8)
    # Of 4 that differ, at most 1 on one side: 2 * (1 + 4) / 16.
    assert found.p == 0.625
    low, high = found.interval
    middle, reach = -0.2, 1.959964 * math.sqrt((5 / 10 - 0.04) / 10)
    assert (low, high) == pytest.approx((middle - reach, middle + reach))


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    # Sums of binomial coefficients by hand.
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (2, 7, 2 * 46 / 512),
        (0, 6, 2 / 64),
        (3, 3, 1.0),
        (10, 1, 24 / 2048),
    ],
)
def test_the_exact_test(better: int, worse: int, p: float) -> None:
    assert exact_p(better, worse) == exact_p(worse, better) == p


def test_the_exact_test_of_many() -> None:
    # The normal approximation of 100,000 coins: 300 away from the middle is 1.897 deviations.
    assert exact_p(50_300, 49_700) == pytest.approx(math.erfc(599 / math.sqrt(2e5)), rel=1e-3)


def test_no_difference_still_has_an_interval() -> None:
    low, high = paired([1] * 100, [1] * 100).interval
    assert low == -high
    assert 0.01 < high < 0.02


def test_values_between_0_and_1_take_the_normal_interval() -> None:
    found = paired([0.5, 1.0, 0.0], [0.5, 0.0, 0.0])
    assert not found.is_binary
    assert found.interval[1] == pytest.approx(-1 / 3 + 1.959964 / 3)
    assert paired([0.5], [1.0]).interval == (-1.0, 1.0)


def plain_distance(first: list[int], second: list[int]) -> int:
    """The table of Wagner and Fischer."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_edit_distance_equals_the_plain_table() -> None:
    draw = random.Random(0)
    for length, other in product((0, 1, 2, 7, 63, 64, 65, 130), repeat=2):
        words = draw.choice((2, 5, 50))
        first = [draw.randrange(words) for _ in range(length)]
        second = [draw.randrange(words) for _ in range(other)]
        assert edit_distance(first, second) == plain_distance(first, second)


def test_edit_distance_of_nearly_equal_sequences() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert relative_distance([1, 2, 3, 4], [1, 2, 4]) == 0.25
    assert relative_distance([], []) == 0.0
    assert relative_distance([], [5]) == 1.0
