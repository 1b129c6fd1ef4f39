"""The entropy-bounded sampler (arXiv 2505.24857): commits positions together while the sum of their
entropies is small.

Shape letters as in engine/decoding/positions.py; L ranks within a sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals, fails_before, is_last, rank_of
from engine.decoding.propose import propose
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class EntropyBound(DecodingStrategy):
    """Commits positions in order of ascending entropy, as long as a sum of entropies stays within
    `bound`. The first always commits.

    Raises:
        UserError: a field out of range.
    """

    bound: float = 0.35
    """In nats."""
    counts_own: bool = False
    """Whether a position's own entropy is in its sum. false: a position commits if the entropies of
    those before it sum to at most the bound (the paper and DiffusionGemma). true: if these and its
    own sum to less than the bound (JetEngine, for SDAR), as a rule one position fewer."""

    def __post_init__(self) -> None:
        if not 0 <= self.bound < float("inf"):
            raise UserError(f"decoding.bound={self.bound}: give 0 or more, in nats")

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        proposals = propose(asked, logits)
        return proposals._replace(score_M=-logits.entropy())

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        rank_M = rank_of(asked, proposals.score_M)
        # One row per sequence, so that no sum includes another sequence's entropies. Only positions
        # that pad a batch, which share one sequence, can rank behind the end of a row.
        shape = (asked.seed_B.shape[0], asked.longest)
        sorted_BL = torch.zeros(shape, dtype=torch.float64, device=rank_M.device)
        place_M = rank_M.clamp(max=asked.longest - 1)
        entropy_M = (-proposals.score_M).double().where(asked.is_masked_M, torch.inf)
        sorted_BL[asked.sequence_M, place_M] = entropy_M
        sum_BL = sorted_BL.cumsum(1)
        if self.counts_own:
            fails_M = (sum_BL[asked.sequence_M, place_M] >= self.bound) & (rank_M > 0)
        else:
            before_BL = sum_BL.roll(1, 1)
            before_BL[:, 0] = 0
            fails_M = before_BL[asked.sequence_M, place_M] > self.bound
        fails_M |= is_last(proposals.score_M) & (rank_M > 0)
        return ~fails_before(asked, rank_M, fails_M) & asked.is_masked_M
