"""Ragged batches of requested positions, for the tests of decoding strategies."""

import random

import torch
from torch import Tensor

from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.decoding.dream import Dream
from engine.decoding.entropy_bound import EntropyBound
from engine.decoding.factor import Factor
from engine.decoding.fixed import Fixed
from engine.decoding.hierarchical import Hierarchical
from engine.decoding.klass import Klass
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.threshold import Threshold

VOCAB = 23
MASK = 22
BLOCK = 32
STRATEGIES: list[DecodingStrategy] = [
    *(decoder() for decoder in DECODERS.values()),
    Fixed(iterations_per_block=4),
    *(Fixed(iterations_per_block=3, order=order) for order in ("margin", "entropy", "random")),
    Fixed(iterations_per_block=5, order="entropy", remainder="spread"),
    Threshold(threshold=0.4),
    Threshold(threshold=0.8, iterations_per_block=3),
    Factor(factor=3.0),
    Factor(factor=3.0, form="code"),
    EntropyBound(bound=4.0),
    EntropyBound(bound=6.0, counts_own=True),
    Hierarchical(threshold=0.8, low_threshold=0.2),
    Klass(num_stable=1, threshold=0.4, top_k=5),
    Dream(iterations_per_block=2, order="margin", order_temperature=0.3),
    Dream(iterations_per_block=3, order="entropy", order_temperature=1.5),
    Dream(iterations_per_block=3, order_temperature=0.2),
    Dream(iterations_per_block=2, order="random"),
]


def ragged(
    counts: list[int],
    temperatures: list[float] | None = None,
    seed: int = 0,
    strategy: DecodingStrategy | None = None,
) -> tuple[AskedPositions, Tensor]:
    """`counts[b]` requested positions of each sequence b, at random canvas positions, and their
    logits. With a `strategy` that keeps state, that of a forward with slightly different logits."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    temperatures = temperatures or [0.0] * len(counts)
    positions = [p for n in counts for p in sorted(draw.sample(range(5, 90), n))]
    asked = AskedPositions(
        sequence_M=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        position_M=torch.tensor(positions),
        offset_M=torch.cat([torch.arange(n) for n in counts]),
        token_M=torch.full((sum(counts),), MASK),
        is_masked_M=torch.ones(sum(counts), dtype=torch.bool),
        num_masked_at_block_start_B=torch.tensor(counts),
        num_iterations_in_block_B=torch.zeros(len(counts), dtype=torch.int64),
        num_iterations_B=torch.arange(len(counts)),
        seed_B=torch.tensor([draw.getrandbits(63) for _ in counts]),
        temperature_B=torch.tensor(temperatures),
        any_sampled=any(temperatures),
        longest=max(counts),
    )
    logits_MV = torch.randn(sum(counts), VOCAB) * 3
    logits_MV[:, MASK] = -torch.inf
    if strategy is None or not strategy.state_fields(VOCAB, BLOCK):
        return asked, logits_MV
    asked = asked._replace(
        state={
            name: torch.zeros((sum(counts), field.width), dtype=field.dtype)
            for name, field in strategy.state_fields(VOCAB, BLOCK).items()
        },
    )
    earlier_MV = logits_MV + torch.randn(sum(counts), VOCAB) * 0.03
    before = strategy.propose(asked, Logits(earlier_MV, VOCAB))
    asked = asked._replace(
        state=before.state,
        num_iterations_in_block_B=torch.ones(len(counts), dtype=torch.int64),
    )
    return asked, logits_MV


def run(
    strategy: DecodingStrategy, asked: AskedPositions, logits_MV: Tensor
) -> tuple[Proposals, Tensor]:
    """What the strategy proposes, and where it commits."""
    proposals = strategy.propose(asked, Logits(logits_MV, VOCAB))
    return proposals, strategy.choose(asked, proposals)


def certain(doubts: list[float], vocab: int = VOCAB) -> Tensor:
    """Logits whose best word has the probability 1 - doubt; the other words share the doubt."""
    doubt_M1 = torch.tensor(doubts, dtype=torch.float64)[:, None]
    logits_MV = (doubt_M1 / (vocab - 2)).log().expand(-1, vocab).clone()
    logits_MV[:, 3] = torch.log1p(-doubt_M1[:, 0])
    logits_MV[:, MASK] = -torch.inf
    return logits_MV.float()
