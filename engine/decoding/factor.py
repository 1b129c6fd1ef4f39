"""Fast-dLLM's factor (arXiv 2505.22618): the more tokens commit at once, the surer they must be."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.positions import AskedPositions, Proposals, fails_before, rank_of


@dataclass(frozen=True, slots=True)
class Factor(DecodingStrategy):
    """Commits the most confident n positions for the largest n of which all ranks k up to n satisfy
    (k + 1) * (1 - confidence of rank k) <= factor; the first rank always.

    The factor bounds how far the product of the marginals can be from the joint distribution.
    (The published code commits one position more where the first to fail is the last of all; the
    paper does not, and neither does this.)

    Raises:
        ValueError: a field out of range.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < float("inf"):
            raise ValueError(f"decoding.factor={self.factor}: give a number above 0")

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        rank_M = rank_of(asked, proposals.log_odds_M)
        doubt_M = torch.sigmoid(-proposals.log_odds_M)
        fails_M = ((rank_M + 2) * doubt_M > self.factor) & (rank_M > 0)
        return ~fails_before(asked, rank_M, fails_M) & asked.is_masked_M
