"""dInfer's hierarchical decoding (arXiv 2510.08666): every run of adjacent masks may commit one
token at a lower threshold, because positions far apart hardly depend on each other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy, check_probability
from engine.decoding.positions import AskedPositions, Proposals, is_best, rank_within
from engine.errors import UserError


@dataclass(frozen=True, slots=True)
class Hierarchical(DecodingStrategy):
    """Commits every position whose confidence is at least `threshold`, the most confident position
    of every contiguous run of masked positions if its confidence is at least `low_threshold`, and
    always the most confident position of the sequence.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.9
    low_threshold: float = 0.4

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        check_probability("low_threshold", self.low_threshold)
        if self.low_threshold > self.threshold:
            raise UserError(
                f"decoding.low_threshold={self.low_threshold} is above decoding.threshold="
                f"{self.threshold}: lower it"
            )

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        log_odds_M, confidence_M = proposals.log_odds_M, proposals.confidence_M
        starts_M = torch.ones_like(asked.is_masked_M)
        starts_M[1:] = (asked.position_M.diff() != 1) | (asked.sequence_M.diff() != 0)
        leads_M = rank_within(starts_M.cumsum(0), log_odds_M) == 0
        is_best_M = is_best(asked, log_odds_M)
        return (
            is_best_M
            | (leads_M & (confidence_M >= self.low_threshold))
            | (confidence_M >= asked.at_least(self.threshold))
        )
