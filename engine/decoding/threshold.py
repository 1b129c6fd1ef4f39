"""Fast-dLLM's confidence threshold (arXiv 2505.22618): commit all that the model is sure of."""

from dataclasses import dataclass

from engine.decoding.base import Decision, MaskedPositions, rank_in_sequence
from engine.decoding.propose import propose


@dataclass(frozen=True, slots=True)
class Threshold:
    """Commits every position whose confidence reaches the threshold, and the most confident in any
    case.

    Raises:
        ValueError: a field out of range.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"decoding.threshold={self.threshold}: a probability above 0 and at most 1"
            )

    def decide(self, masked: MaskedPositions) -> Decision:
        proposals = propose(masked)
        is_best_M = rank_in_sequence(proposals.log_odds_M, masked) == 0
        commit_M = is_best_M | (proposals.confidence_M >= self.threshold)
        return Decision(proposals.token_M, proposals.confidence_M, commit_M)
