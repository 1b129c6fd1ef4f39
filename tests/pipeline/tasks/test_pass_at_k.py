"""pass@k computed by hand."""

import pytest

from pipeline.tasks.pass_at_k import pass_at_k


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "expected"),
    [
        (1, 1, 1, 1.0),
        (1, 0, 1, 0.0),
        (4, 1, 1, 1 / 4),
        (4, 2, 2, 1 - 1 / 6),  # 1 of the 6 pairs has no correct sample
        (5, 1, 3, 1 - 4 / 10),  # 4 of the 10 triples lack the correct one
        (5, 3, 3, 1.0),  # only 2 are wrong: every triple has a correct one
        (10, 0, 10, 0.0),
    ],
)
def test_pass_at_k_by_hand(num_samples: int, num_correct: int, k: int, expected: float) -> None:
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected)
