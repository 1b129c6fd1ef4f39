"""Proposals: drawn words, their confidence, and the noise that they are drawn with."""

import pytest
import torch
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.noise import noise_of, position_noise
from engine.decoding.positions import AskedPositions
from engine.decoding.propose import logsumexp, propose
from tests.engine.ragged import VOCAB, ragged


def gumbel_noise(asked: AskedPositions) -> Tensor:
    noise = noise_of(asked)
    assert noise is not None
    return noise.gumbel(range(VOCAB))


def test_confidence_of_a_draw_is_the_models_own_probability() -> None:
    asked, logits_MV = ragged([40], temperatures=[3.0])
    proposals = propose(asked, Logits(logits_MV, VOCAB))
    probability_MV = logits_MV.softmax(-1)
    expected = probability_MV[torch.arange(40), proposals.token_M]
    assert torch.allclose(proposals.confidence_M, expected)
    assert (proposals.token_M != logits_MV.argmax(-1)).any()


def test_logsumexp_follows_from_the_proposals() -> None:
    for temperature in (0.0, 30.0):
        asked, logits_MV = ragged([40], temperatures=[temperature])
        logits_MV *= 9
        logits = Logits(logits_MV, VOCAB)
        total_M1 = logsumexp(logits, propose(asked, logits))
        torch.testing.assert_close(total_M1, logits_MV.logsumexp(-1, keepdim=True))


def test_draws_follow_the_softmax() -> None:
    """20,000 draws from the same logits: the frequency of each word is within five standard
    deviations of its probability."""
    count, temperature = 20_000, 1.7
    torch.manual_seed(0)
    logits_V = torch.randn(VOCAB) * 2
    asked = AskedPositions(
        sequence_M=torch.zeros(count, dtype=torch.int64),
        position_M=torch.arange(count),
        offset_M=torch.arange(count),
        num_masked_at_block_start_B=torch.tensor([count]),
        num_iterations_in_block_B=torch.tensor([0]),
        num_iterations_B=torch.tensor([0]),
        seed_B=torch.tensor([2**62 + 12345]),
        temperature_B=torch.tensor([temperature]),
        any_sampled=True,
        longest=count,
    )
    token_M = propose(asked, Logits(logits_V.repeat(count, 1), VOCAB)).token_M
    frequency_V = torch.bincount(token_M, minlength=VOCAB) / count
    probability_V = (logits_V / temperature).softmax(-1)
    deviation_V = (probability_V * (1 - probability_V) / count).sqrt()
    assert ((frequency_V - probability_V).abs() < 5 * deviation_V + 1e-5).all()


def test_noise_is_gumbel_and_changes_with_every_part_of_its_key() -> None:
    asked, _ = ragged([30, 30], temperatures=[1.0, 1.0])
    noise_MV, places_M = gumbel_noise(asked), position_noise(asked)
    assert noise_MV.mean().item() == pytest.approx(0.5772, abs=0.12)
    assert noise_MV.var().item() == pytest.approx(1.6449, abs=0.25)
    assert noise_MV.isfinite().all()
    assert places_M.mean().item() == pytest.approx(0.5, abs=0.12)
    for field in ("seed_B", "num_iterations_B", "position_M"):
        changed, _ = ragged([30, 30], temperatures=[1.0, 1.0])
        getattr(changed, field).add_(1)
        assert (gumbel_noise(changed) == noise_MV).float().mean() < 0.01, field
        assert (position_noise(changed) == places_M).float().mean() < 0.01, field
