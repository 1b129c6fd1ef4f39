"""The reduction of a CPU gives the bits of plain torch's."""

import pytest
import torch

from engine.decoding.noise import Noise, noise_of
from engine.decoding.reduction import CPU, TORCH
from tests.engine.ragged import ragged

NUM_WORDS = 70


def noise() -> Noise | None:
    asked, _ = ragged([9, 24], [0.0, 1.3])
    return noise_of(asked)


@pytest.mark.parametrize("drawn", [None, noise()], ids=["greedy", "drawn"])
def test_ties_and_what_is_not_finite(drawn: Noise | None) -> None:
    torch.manual_seed(0)
    logits_MU = torch.randn(33, NUM_WORDS).round(decimals=1)  # with ties
    logits_MU[0] = 2.5
    logits_MU[1] = -torch.inf
    logits_MU[2, 5:] = -torch.inf
    logits_MU[3, 40] = logits_MU[3, 60] = torch.nan
    logits_MU[4, 7] = torch.inf
    logits_MU[10:20, -1] = -torch.inf
    one = CPU.best(logits_MU, drawn, range(NUM_WORDS))
    other = TORCH.best(logits_MU, drawn, range(NUM_WORDS))
    for name in ("place_M", "score_M", "logit_M", "others_M"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True
        )


def test_one_position_and_none() -> None:
    for count in (0, 1):
        logits_MU = torch.randn(count, NUM_WORDS)
        one, other = (its.best(logits_MU, None, range(NUM_WORDS)) for its in (CPU, TORCH))
        assert torch.equal(one.place_M, other.place_M)
        assert torch.equal(one.others_M, other.others_M)
