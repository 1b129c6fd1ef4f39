"""Fast-dLLM's threshold (arXiv 2505.22618): commits every position of sufficient confidence."""

from dataclasses import dataclass

from torch import Tensor

from engine.decoding.base import DecodingStrategy, check_probability
from engine.decoding.positions import AskedPositions, Proposals, is_best


@dataclass(frozen=True, slots=True)
class Threshold(DecodingStrategy):
    """Commits every position whose confidence is at least `threshold`, and always the most
    confident one.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        is_best_M = is_best(asked, proposals.log_odds_M)
        return is_best_M | (proposals.confidence_M >= asked.at_least(self.threshold))
