"""A fixed number of commits in every iteration: LLaDA's schedule (arXiv 2502.09992), and RND1's.

Shape letters as in engine/decoding/positions.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.order import check_order, propose_in_order
from engine.decoding.positions import AskedPositions, Proposals, rank_of
from engine.errors import UserError
from engine.model.authors import Opening

REMAINDERS = ("first", "spread")


@dataclass(frozen=True, slots=True)
class Fixed(DecodingStrategy):
    """Spreads a block's commits evenly over its iterations; each commits the best positions.

    Raises:
        UserError: a field out of range.
    """

    iterations_per_block: int | None = None
    """null: one commit per iteration."""
    order: str = "confidence"
    """Which positions are best: those with the highest `confidence`, the largest `margin` between
    the two likeliest words, or the lowest `entropy`; or `random` ones, by the request's seed."""
    remainder: str = "first"
    """Where the number of masks M does not divide by the number of iterations S. `first`, as in
    LLaDA: the first iterations commit one more. `spread`, as in RND1: floor(M s / S) masks are left
    when s iterations are, cut in float32 as in RND1's code. So an iteration may commit none, and
    another two, even where S is M (null)."""

    def __post_init__(self) -> None:
        if self.iterations_per_block is not None and self.iterations_per_block < 1:
            raise UserError(
                f"decoding.iterations_per_block={self.iterations_per_block}: give at least 1, "
                "or null for one token per iteration"
            )
        check_order(self.order)
        if self.remainder not in REMAINDERS:
            raise UserError(
                f"decoding.remainder={self.remainder!r}: give one of {', '.join(REMAINDERS)}"
            )

    @property
    def reads_whole_logits(self) -> bool:
        return self.order == "margin"

    @property
    def may_commit_nothing(self) -> bool:
        return self.remainder == "spread"

    @property
    def opening(self) -> Opening | None:
        return "free" if self.remainder == "spread" else None

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        return propose_in_order(self.order, asked, logits)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        quota_B = self._spread(asked) if self.remainder == "spread" else self._first(asked)
        return rank_of(asked, proposals.score_M) < asked.of_sequence(quota_B)

    def _first(self, asked: AskedPositions) -> Tensor:
        """How many positions of each sequence commit, int64 [B]: floor(M / S), and one more in the
        first M mod S iterations."""
        num_masked_B = asked.num_masked_at_block_start_B
        if self.iterations_per_block is None:
            return (num_masked_B > 0).long()
        quota_B = num_masked_B // self.iterations_per_block
        extra_B = num_masked_B % self.iterations_per_block
        return quota_B + (asked.num_iterations_in_block_B < extra_B).long()

    def _spread(self, asked: AskedPositions) -> Tensor:
        """The same for floor(M s / S) masks that are left when s iterations are."""
        most_B = asked.num_masked_at_block_start_B
        length_B = most_B.clamp(min=1)  # 0 where a sequence only pads the batch
        if self.iterations_per_block is not None:
            length_B = torch.full_like(length_B, self.iterations_per_block)
        left_B = (length_B - 1 - asked.num_iterations_in_block_B).clamp(min=0)
        kept_B = (most_B.float() * (left_B.double() / length_B).float()).long()
        num_masked_B = torch.zeros_like(most_B)
        num_masked_B.index_add_(0, asked.sequence_M, asked.is_masked_M.long())
        return num_masked_B - kept_B
