"""Fast-dLLM's factor (arXiv 2505.22618): the more tokens commit at once, the higher the confidence
that each of them needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.positions import AskedPositions, Proposals, fails_before, is_last, rank_of
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Factor(DecodingStrategy):
    """Commits the n most confident positions, for the largest n such that every rank k = 1 .. n
    satisfies (k + 1) * (1 - confidence of rank k) <= factor. The most confident one always commits.

    The factor bounds how far the product of the marginals can be from the joint distribution. If
    only the last position fails, the published code commits it too; the paper does not, and neither
    does this.

    Raises:
        UserError: a field out of range.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < float("inf"):
            raise UserError(f"decoding.factor={self.factor}: give a number above 0")

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        rank_M = rank_of(asked, proposals.log_odds_M)
        doubt_M = torch.sigmoid(-proposals.log_odds_M)
        is_doubtful_M = ((rank_M + 2) * doubt_M > self.factor) | is_last(proposals.log_odds_M)
        fails_M = is_doubtful_M & (rank_M > 0)
        return ~fails_before(asked, rank_M, fails_M) & asked.is_masked_M
