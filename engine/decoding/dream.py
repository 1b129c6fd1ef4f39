"""Dream's own sampler (arXiv 2508.15487): commits by a grid of times from 1 to eps.

Shape letters as in engine/decoding/positions.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.logits import Logits
from engine.decoding.noise import position_gumbel, position_noise
from engine.decoding.order import check_order, propose_in_order
from engine.decoding.positions import AskedPositions, Proposals, is_last, rank_of
from engine.errors import UserError
from engine.model.authors import Opening


@dataclass(frozen=True, slots=True)
class Dream(DecodingStrategy):
    """Takes the time of a block's i-th of S iterations from t_i = 1 - i (1 - eps) / S to t_(i + 1).

    With m masks left, the iteration commits the best floor(m (1 - t_(i + 1) / t_i)) positions, and
    the last iteration all that are left. So an iteration may commit none, as the first one does
    where S is the number of masks.

    Dream knows no blocks: `engine.block_length` of at least max_new_tokens makes the generation
    region one block, and `cache=none` recomputes the whole canvas in every iteration, as Dream
    does.

    Raises:
        UserError: a field out of range, or two that contradict each other.
    """

    iterations_per_block: int | None = None
    """S, Dream's `steps`; null: as many as the block has masks when it is entered."""
    order: str = "confidence"
    """Which positions are best: those with the highest `confidence` (Dream's alg=maskgit_plus), the
    largest `margin` between the two likeliest words (topk_margin) or the lowest `entropy`
    (entropy). `random` (origin) counts none: each masked position commits by itself, with the
    probability 1 - t_(i + 1) / t_i."""
    order_temperature: float = 0.0
    """Dream's `alg_temp`. 0: the best positions commit. Above 0, as many are drawn without
    replacement from the softmax of (confidence, margin or minus entropy) / order_temperature over
    the masked positions."""
    eps: float = 1e-3
    """The time at the end of the grid."""

    def __post_init__(self) -> None:
        if self.iterations_per_block is not None and self.iterations_per_block < 1:
            raise UserError(
                f"decoding.iterations_per_block={self.iterations_per_block}: give at least 1, "
                "or null for as many as there are masks"
            )
        check_order(self.order)
        if not 0 <= self.order_temperature < float("inf"):
            raise UserError(
                f"decoding.order_temperature={self.order_temperature}: give 0 (the best positions) "
                "or a positive number"
            )
        if self.order_temperature > 0 and self.order == "random":
            raise UserError(
                f"decoding.order_temperature={self.order_temperature} with decoding.order=random: "
                "every position is drawn by itself then; give order_temperature=0, or another order"
            )
        if not 0 < self.eps < 1:
            raise UserError(f"decoding.eps={self.eps}: give a time above 0 and below 1")

    @property
    def reads_whole_logits(self) -> bool:
        return self.order == "margin"

    @property
    def may_commit_nothing(self) -> bool:
        return True

    @property
    def opening(self) -> Opening | None:
        return "free"

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        proposals = propose_in_order(self.order, asked, logits)
        if self.order_temperature == 0:
            return proposals
        score_M = proposals.score_M
        if self.order == "confidence":
            score_M = proposals.confidence_M
        elif self.order == "margin":
            score_M = -torch.expm1(-score_M)
        # The largest of these are a draw without replacement (Gumbel top-k, arXiv 1903.06059).
        score_M = score_M.double() / self.order_temperature + position_gumbel(asked)
        return proposals._replace(score_M=score_M)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        share_B, is_last_B = self._share(asked)
        if self.order == "random":
            # Not by the scores: those of positions that commit last are changed.
            share_M = asked.of_sequence(share_B.masked_fill(is_last_B, 1))
            is_chosen_M = asked.is_masked_M & (position_noise(asked) < share_M)
            return is_chosen_M & (self._is_free(asked, proposals) | asked.of_sequence(is_last_B))
        num_masked_B = torch.zeros_like(asked.seed_B)
        num_masked_B.index_add_(0, asked.sequence_M, asked.is_masked_M.long())
        quota_B = torch.where(is_last_B, num_masked_B, (num_masked_B * share_B).long())
        is_chosen_M = rank_of(asked, proposals.score_M) < asked.of_sequence(quota_B)
        return asked.is_masked_M & is_chosen_M

    def _is_free(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        """Whether the position need not wait for others of its block to commit (suppress_eos)."""
        waits_M = is_last(proposals.log_odds_M)
        num_others_B = torch.zeros_like(asked.seed_B)
        num_others_B.index_add_(0, asked.sequence_M, (asked.is_masked_M & ~waits_M).long())
        return ~waits_M | (asked.of_sequence(num_others_B) == 0)

    def _share(self, asked: AskedPositions) -> tuple[Tensor, Tensor]:
        """1 - t_(i + 1) / t_i, float32 [B], and whether the iteration is the last, bool [B]."""
        index_B, length_B = asked.num_iterations_in_block_B, asked.num_masked_at_block_start_B
        if self.iterations_per_block is not None:
            length_B = torch.full_like(length_B, self.iterations_per_block)
        length_B = length_B.clamp(min=1)  # 0 where a sequence only pads the batch
        share_B = 1 - self._time(index_B + 1, length_B) / self._time(index_B, length_B)
        return share_B, index_B >= length_B - 1

    def _time(self, index_B: Tensor, length_B: Tensor) -> Tensor:
        """t_i as torch.linspace(1, eps, S + 1) has it in float32, counted from the nearer end, so
        that quotas are cut as in Dream's code."""
        end = torch.full_like(index_B, self.eps, dtype=torch.float32)
        step_B = (end - 1) / length_B
        from_end_B = end - step_B * (length_B - index_B)
        return torch.where(index_B < (length_B + 1) // 2, 1 + step_B * index_B, from_end_B)
