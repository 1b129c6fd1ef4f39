"""LLaDA2.1's joint threshold: masked positions commit, and committed ones of the active block are
replaced where the model has changed its mind."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from engine.decoding.base import DecodingStrategy, check_probability
from engine.decoding.positions import AskedPositions, Proposals, rank_of


@dataclass(frozen=True, slots=True)
class Edit(DecodingStrategy):
    """Commits masked positions whose confidence reaches `threshold`, and the most confident in any
    case; replaces committed tokens of the active block by another that reaches `edit_threshold`.

    The block stays active after its last mask is gone, until a forward changes nothing; only then
    are its K and V taken as final. The prompt is never edited.

    Raises:
        ValueError: a field out of range.
    """

    threshold: float = 0.7
    edit_threshold: float = 0.5
    max_post_iterations: int = 16
    """Forwards of a block after its last mask is gone, at most."""
    edits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        if not 0 <= self.edit_threshold <= 1:
            raise ValueError(
                f"decoding.edit_threshold={self.edit_threshold}: give 0 (every change) to 1"
            )
        if self.max_post_iterations < 0:
            raise ValueError(
                f"decoding.max_post_iterations={self.max_post_iterations}: give 0 or more"
            )

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        confidence_M, is_masked_M = proposals.confidence_M, asked.is_masked_M
        is_best_M = (rank_of(asked, proposals.log_odds_M) == 0) & is_masked_M
        is_sure_M = confidence_M >= asked.at_least(self.threshold)
        differs_M = proposals.token_M != asked.token_M
        is_edit_M = differs_M & (confidence_M >= self.edit_threshold)
        return is_best_M | (is_sure_M & is_masked_M) | (is_edit_M & ~is_masked_M)
