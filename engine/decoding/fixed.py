"""LLaDA's low-confidence schedule (arXiv 2502.09992): a fixed number of commits in every
iteration."""

from dataclasses import dataclass

from engine.decoding.base import Decision, MaskedPositions, rank_in_sequence
from engine.decoding.propose import propose


@dataclass(frozen=True, slots=True)
class Fixed:
    """Each iteration of a block commits its most confident positions, the block's masks spread
    evenly.

    Raises:
        ValueError: a field out of range.
    """

    iterations_per_block: int | None = None
    """None commits one token per iteration."""

    def __post_init__(self) -> None:
        if self.iterations_per_block is not None and self.iterations_per_block < 1:
            raise ValueError(
                f"decoding.iterations_per_block={self.iterations_per_block}: give at least 1, "
                "or null for one token per iteration"
            )

    def decide(self, masked: MaskedPositions) -> Decision:
        proposals = propose(masked)
        num_masked_B = masked.num_masked_at_block_start_B
        if self.iterations_per_block is None:
            quota_B = (num_masked_B > 0).long()
        else:
            quota_B = num_masked_B // self.iterations_per_block
            extra_B = num_masked_B % self.iterations_per_block
            quota_B = quota_B + (masked.num_iterations_in_block_B < extra_B).long()
        commit_M = rank_in_sequence(proposals.log_odds_M, masked) < quota_B[masked.sequence_M]
        return Decision(proposals.token_M, proposals.confidence_M, commit_M)
