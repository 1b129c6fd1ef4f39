"""Fast-dLLM's factor (arXiv 2505.22618): the more tokens commit at once, the higher the confidence
that each of them needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.positions import AskedPositions, Proposals, fails_before, is_last, rank_of
from engine.errors import UserError

FORMS = ("paper", "code")


@dataclass(frozen=True, slots=True)
class Factor(DecodingStrategy):
    """Commits the n most confident positions, for the largest n such that every rank k = 1 .. n
    satisfies (k + 1) * (1 - confidence of rank k) <= factor. The most confident one always commits.

    The factor bounds how far the product of the marginals can be from the joint distribution.

    Raises:
        UserError: a field out of range.
    """

    factor: float = 1.0
    form: str = "paper"
    """`paper`: the rule as it is published. `code`: as in Fast-dLLM's later code, where the last
    rank of all masked positions of the block has no condition of its own: if no rank before it
    fails, it commits too. So two masked positions always commit together."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"decoding.form={self.form!r}: give one of {', '.join(FORMS)}")
        if not 0 < self.factor < float("inf"):
            raise UserError(f"decoding.factor={self.factor}: give a number above 0")

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        rank_M = rank_of(asked, proposals.log_odds_M)
        doubt_M = torch.sigmoid(-proposals.log_odds_M)
        fails_M = ((rank_M + 2) * doubt_M > self.factor) & (rank_M > 0)
        if self.form == "code":
            num_masked_B = torch.zeros_like(asked.seed_B)
            num_masked_B.index_add_(0, asked.sequence_M, asked.is_masked_M.long())
            fails_M &= rank_M < asked.of_sequence(num_masked_B) - 1
        fails_M |= is_last(proposals.log_odds_M) & (rank_M > 0)
        return ~fails_before(asked, rank_M, fails_M) & asked.is_masked_M
