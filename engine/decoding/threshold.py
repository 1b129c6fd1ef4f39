"""Fast-dLLM's threshold (arXiv 2505.22618): commits every position of sufficient confidence."""

from dataclasses import dataclass

from torch import Tensor

from engine.decoding.base import DecodingStrategy, check_probability
from engine.decoding.positions import AskedPositions, Proposals, is_best, rank_of
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Threshold(DecodingStrategy):
    """Commits every position whose confidence is at least `threshold`, and always the most
    confident one.

    With `iterations_per_block` as in LLaDA2.0 (arXiv 2512.15745) and SDAR (low_confidence_dynamic):
    where fewer reach the threshold than an even schedule would commit, as many of the best do.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.9
    iterations_per_block: int | None = None
    """The schedule: engine.block_length positions divided among so many iterations, of which the
    first take the remainder. Positions count and not masks, as in the authors' code, so a block
    that begins with the prompt's tail, or is cut short by the end of the generation region, takes
    fewer iterations. null: at least one commit per iteration."""

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        if self.iterations_per_block is not None and self.iterations_per_block < 1:
            raise UserError(
                f"decoding.iterations_per_block={self.iterations_per_block}: give at least 1, "
                "or null for at least one token per iteration"
            )

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        is_sure_M = proposals.confidence_M >= asked.at_least(self.threshold)
        if self.iterations_per_block is None:
            return is_best(asked, proposals.log_odds_M) | is_sure_M
        # The sure positions rank first. So if there are at least as many as the schedule wants,
        # this is all of them, and else the best of all.
        share, rest = divmod(asked.longest, self.iterations_per_block)
        quota_B = (asked.num_iterations_in_block_B < rest).long().add(share).clamp(min=1)
        return is_sure_M | (rank_of(asked, proposals.log_odds_M) < asked.of_sequence(quota_B))
