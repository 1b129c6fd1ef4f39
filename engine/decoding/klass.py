"""KLASS (arXiv 2511.05664): commits positions that are confident and whose distribution is stable.

Shape letters as in engine/decoding/positions.py; W likeliest words of a position.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy, StateField, check_probability
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals, is_best
from engine.decoding.propose import logsumexp, propose
from engine.errors import UserError

LEAST_PROBABILITY = 1e-9
"""Smaller probabilities are raised to this, so that their logarithms stay finite."""


@dataclass(frozen=True, slots=True)
class Klass(DecodingStrategy):
    """Commits every position whose confidence is at least `threshold` and whose distribution has
    changed by less than `kl_threshold` in each of the last `num_stable` forwards of its block. If a
    sequence has no such position, its most confident one commits.

    The change is KL(now || before), over the `top_k` likeliest words of the forward before, with
    all other words merged into one. This is at most the divergence over the whole vocabulary, for
    which the whole distributions would have to be kept.

    Raises:
        UserError: a field out of range.
    """

    threshold: float = 0.9
    kl_threshold: float = 0.01
    num_stable: int = 2
    top_k: int = 32

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        if not 0 < self.kl_threshold < float("inf"):
            raise UserError(f"decoding.kl_threshold={self.kl_threshold}: give a number above 0")
        for name in ("num_stable", "top_k"):
            if getattr(self, name) < 1:
                raise UserError(f"decoding.{name}={getattr(self, name)}: give at least 1")

    @property
    def reads_whole_logits(self) -> bool:
        return True

    def state_fields(self, vocab_size: int, block_length: int) -> dict[str, StateField]:
        top_k = min(self.top_k, vocab_size)
        return {
            "words": StateField(top_k, torch.int32),
            "probabilities": StateField(top_k, torch.float32),
            "stable": StateField(1, torch.int32),
        }

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        proposals = propose(asked, logits)
        total_M1 = logsumexp(logits, proposals)
        before_MW = asked.state["probabilities"]
        then_MW = (logits.at(asked.state["words"].long()) - total_M1).exp()
        is_stable_M = _divergence(then_MW, before_MW) < self.kl_threshold
        has_before_M = asked.of_sequence(asked.num_iterations_in_block_B) > 0
        stable_M = (asked.state["stable"][:, 0] + 1) * (is_stable_M & has_before_M)
        top = logits.top_k(before_MW.shape[1])
        kept = {
            "words": top.word_MW.int(),
            "probabilities": (top.logit_MW - total_M1).exp(),
            "stable": stable_M[:, None].int(),
        }
        return proposals._replace(score_M=stable_M.float(), state=kept)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        is_sure_M = proposals.confidence_M >= asked.at_least(self.threshold)
        is_ready_M = is_sure_M & (proposals.score_M >= self.num_stable)
        # Ready positions rank first, so the first one is not ready only if none in its sequence is.
        is_first_M = is_best(asked, proposals.log_odds_M.where(~is_ready_M, torch.inf))
        return is_first_M | is_ready_M


def _divergence(p_MW: Tensor, q_MW: Tensor) -> Tensor:
    """KL(p || q), [M]. The missing mass of either distribution counts as one more word."""
    p, q = (
        torch.cat((x, 1 - x.sum(1, keepdim=True)), dim=1).clamp(min=LEAST_PROBABILITY).double()
        for x in (p_MW, q_MW)
    )
    return (p * (p / q).log()).sum(1)
