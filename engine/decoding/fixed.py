"""LLaDA's schedule (arXiv 2502.09992): a fixed number of commits in every iteration."""

from dataclasses import dataclass

from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.order import check_order, propose_in_order
from engine.decoding.positions import AskedPositions, Proposals, rank_of
from engine.errors import UserError


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

    def __post_init__(self) -> None:
        if self.iterations_per_block is not None and self.iterations_per_block < 1:
            raise UserError(
                f"decoding.iterations_per_block={self.iterations_per_block}: give at least 1, "
                "or null for one token per iteration"
            )
        check_order(self.order)

    @property
    def reads_whole_logits(self) -> bool:
        return self.order == "margin"

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        return propose_in_order(self.order, asked, logits)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        num_masked_B = asked.num_masked_at_block_start_B
        if self.iterations_per_block is None:
            quota_B = (num_masked_B > 0).long()
        else:
            quota_B = num_masked_B // self.iterations_per_block
            extra_B = num_masked_B % self.iterations_per_block
            quota_B = quota_B + (asked.num_iterations_in_block_B < extra_B).long()
        return rank_of(asked, proposals.score_M) < asked.of_sequence(quota_B)
