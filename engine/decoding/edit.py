"""LLaDA2.1's joint threshold: commits masked positions, and replaces committed tokens of the active
block that the model no longer predicts."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from engine.decoding.base import DecodingStrategy, check_probability
from engine.decoding.positions import AskedPositions, Proposals, is_best
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Edit(DecodingStrategy):
    """Commits masked positions whose confidence is at least `threshold`, and always the most
    confident one. Replaces a committed token of the active block if the model now predicts another
    token with a confidence of at least `edit_threshold`.

    After its last mask is gone, the block stays active until a forward changes nothing, or for
    max_post_iterations forwards. Only then are its K and V final. The prompt is never edited.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.7
    edit_threshold: float = 0.5
    max_post_iterations: int = 16
    """At most this many forwards of a block after its last mask is gone."""
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        if not 0 <= self.edit_threshold <= 1:
            raise UserError(
                f"decoding.edit_threshold={self.edit_threshold}: give 0 (every change) to 1"
            )
        if self.max_post_iterations < 0:
            raise UserError(
                f"decoding.max_post_iterations={self.max_post_iterations}: give 0 or more"
            )

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        confidence_M, is_masked_M = proposals.confidence_M, asked.is_masked_M
        is_best_M = is_best(asked, proposals.log_odds_M) & is_masked_M
        is_sure_M = confidence_M >= asked.at_least(self.threshold)
        differs_M = proposals.token_M != asked.token_M
        is_edit_M = differs_M & (confidence_M >= self.edit_threshold)
        return is_best_M | (is_sure_M & is_masked_M) | (is_edit_M & ~is_masked_M)
