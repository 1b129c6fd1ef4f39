"""Each strategy on ragged batches, against loops over sequences, and on ties."""

import random

import pytest
import torch

from engine.decoding import DECODERS, DecodingStrategy
from engine.decoding.base import MaskedPositions, rank_in_sequence
from engine.decoding.fixed import Fixed
from engine.decoding.propose import gumbel_noise, propose
from engine.decoding.threshold import Threshold

VOCAB = 23


def ragged(
    counts: list[int], temperatures: list[float] | None = None, seed: int = 0
) -> MaskedPositions:
    """`counts[b]` masked positions of sequence b, at scattered canvas positions."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    temperatures = temperatures or [0.0] * len(counts)
    positions = [p for n in counts for p in sorted(draw.sample(range(5, 90), n))]
    return MaskedPositions(
        logits_MV=torch.randn(sum(counts), VOCAB) * 3,
        sequence_M=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        position_M=torch.tensor(positions),
        num_masked_at_block_start_B=torch.tensor(counts),
        num_iterations_in_block_B=torch.zeros(len(counts), dtype=torch.int64),
        num_iterations_B=torch.arange(len(counts)),
        seed_B=torch.tensor([draw.getrandbits(63) for _ in counts]),
        temperature_B=torch.tensor(temperatures),
        any_sampled=any(temperatures),
    )


def of_sequence(masked: MaskedPositions, b: int) -> MaskedPositions:
    rows = masked.sequence_M == b
    only = slice(b, b + 1)
    return MaskedPositions(
        logits_MV=masked.logits_MV[rows],
        sequence_M=torch.zeros(int(rows.sum()), dtype=torch.int64),
        position_M=masked.position_M[rows],
        num_masked_at_block_start_B=masked.num_masked_at_block_start_B[only],
        num_iterations_in_block_B=masked.num_iterations_in_block_B[only],
        num_iterations_B=masked.num_iterations_B[only],
        seed_B=masked.seed_B[only],
        temperature_B=masked.temperature_B[only],
        any_sampled=bool(masked.temperature_B[b] > 0),
    )


STRATEGIES = [Fixed(), Fixed(iterations_per_block=4), Threshold(), Threshold(threshold=0.4)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_sequence_never_sees_its_neighbours(strategy: DecodingStrategy) -> None:
    masked = ragged([7, 1, 32, 4], temperatures=[0.0, 0.8, 1.5, 0.0])
    together = strategy.decide(masked)
    for b in range(4):
        alone = strategy.decide(of_sequence(masked, b))
        for ours, theirs in zip(together, alone, strict=True):
            assert torch.equal(ours[masked.sequence_M == b], theirs)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_every_sequence_commits_something(strategy: DecodingStrategy) -> None:
    masked = ragged([3, 1, 9, 2, 16], seed=2)
    commit_M = strategy.decide(masked).commit_M
    assert set(masked.sequence_M[commit_M].tolist()) == set(range(5))


def test_threshold_commits_all_that_reach_it_and_the_best() -> None:
    masked = ragged([12, 12], seed=4)
    decision = Threshold(threshold=0.8).decide(masked)
    confidence_M = masked.logits_MV.softmax(-1).max(-1).values
    assert torch.allclose(decision.confidence_M, confidence_M)
    for b in range(2):
        rows = masked.sequence_M == b
        expected = confidence_M[rows] >= 0.8
        expected[confidence_M[rows].argmax()] = True
        assert torch.equal(decision.commit_M[rows], expected)
    assert decision.commit_M.sum() > 2
    assert not decision.commit_M.all()


def test_fixed_commits_its_quota_over_a_block() -> None:
    """7 masks in 3 iterations: 3, 2, 2 (n_t = floor(m / S) + [t < m mod S])."""
    for t, quota in enumerate((3, 2, 2)):
        masked = ragged([7], seed=t)
        masked.num_iterations_in_block_B[:] = t
        assert int(Fixed(iterations_per_block=3).decide(masked).commit_M.sum()) == quota


def test_ties_go_to_the_earlier_position() -> None:
    masked = ragged([4, 3])
    score_M = torch.tensor([0.5, 0.9, 0.9, 0.5, 0.1, 0.1, 0.1])
    assert rank_in_sequence(score_M, masked).tolist() == [2, 0, 1, 3, 0, 1, 2]


def test_confidence_of_a_draw_is_the_models_own_probability() -> None:
    masked = ragged([40], temperatures=[3.0])
    token_M, _, confidence_M = propose(masked)
    probability_MV = masked.logits_MV.softmax(-1)
    assert torch.allclose(confidence_M, probability_MV[torch.arange(40), token_M])
    assert (token_M != masked.logits_MV.argmax(-1)).any()


def test_positions_that_all_round_to_certain_keep_their_order() -> None:
    """float32 probabilities of 1 tie; the log odds behind them do not."""
    masked = ragged([6])
    masked.logits_MV[:] = 0.0
    masked.logits_MV[:, 3] = torch.tensor([30.0, 33.0, 31.0, 35.0, 34.0, 32.0])
    assert (masked.logits_MV.softmax(-1)[:, 3] == 1).all()
    commit_M = Fixed(iterations_per_block=3).decide(masked).commit_M
    assert commit_M.tolist() == [False, False, False, True, True, False]


def test_draws_follow_the_softmax() -> None:
    """20,000 draws of one row: each word within five standard deviations of its probability."""
    count, temperature = 20_000, 1.7
    torch.manual_seed(0)
    logits_V = torch.randn(VOCAB) * 2
    masked = MaskedPositions(
        logits_MV=logits_V.repeat(count, 1),
        sequence_M=torch.zeros(count, dtype=torch.int64),
        position_M=torch.arange(count),
        num_masked_at_block_start_B=torch.tensor([count]),
        num_iterations_in_block_B=torch.tensor([0]),
        num_iterations_B=torch.tensor([0]),
        seed_B=torch.tensor([2**62 + 12345]),
        temperature_B=torch.tensor([temperature]),
        any_sampled=True,
    )
    frequency_V = torch.bincount(propose(masked).token_M, minlength=VOCAB) / count
    probability_V = (logits_V / temperature).softmax(-1)
    deviation_V = (probability_V * (1 - probability_V) / count).sqrt()
    assert ((frequency_V - probability_V).abs() < 5 * deviation_V + 1e-5).all()


def test_noise_is_gumbel_and_changes_with_every_part_of_its_key() -> None:
    masked = ragged([30, 30], temperatures=[1.0, 1.0])
    noise_MV = gumbel_noise(masked)
    assert noise_MV.mean().item() == pytest.approx(0.5772, abs=0.12)
    assert noise_MV.var().item() == pytest.approx(1.6449, abs=0.25)
    assert noise_MV.isfinite().all()
    for field in ("seed_B", "num_iterations_B", "position_M"):
        changed = ragged([30, 30], temperatures=[1.0, 1.0])
        getattr(changed, field).add_(1)
        assert (gumbel_noise(changed) == noise_MV).float().mean() < 0.01, field


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("threshold", {"threshold": 0.0}, "decoding.threshold=0.0"),
        ("threshold", {"threshold": 1.5}, "decoding.threshold=1.5"),
        ("fixed", {"iterations_per_block": 0}, "decoding.iterations_per_block=0"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        DECODERS[name](**settings)
