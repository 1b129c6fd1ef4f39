"""What a reference decoder sees of one forward, and how positions are ordered.

"Best first" orders positions by the probability of all words but the proposed one, least first;
ties go to the earlier position.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.numerics.reference_words import (
    Floats,
    Proposal,
    entropy,
    lead_doubt,
    propose,
    random_order,
    softmax,
)

Commits = dict[int, Proposal]


@dataclass(kw_only=True)
class View:
    """What one forward showed of the active block, and what else a strategy may use."""

    logits: dict[int, Floats]
    """float32, by requested position; -inf at the mask token, so that it is never proposed."""
    masked: list[int]
    """Masked positions, ascending. At least one, except with `edit`."""
    tokens: dict[int, int]
    """The current tokens at the requested positions, masks included."""
    block_length: int
    num_masked_at_block_start: int
    iteration: int
    iteration_in_block: int
    temperature: float
    seed: int
    relaxation: float | None
    """With soft iteration, how much the lower limit of confidence thresholds falls per forward."""
    memory: dict[str, Any]
    """What the strategy keeps from forward to forward; emptied when a block is entered."""
    last: tuple[int, ...] = ()
    """Words whose positions commit only when no other position is left: decoding.suppress_eos."""
    uncounted: tuple[int, ...] = ()
    """Words that are left out of the softmax of confidences."""

    def propose(self, logits: dict[int, Floats] | None = None) -> Commits:
        return {i: self._proposal(i, z) for i, z in (logits or self.logits).items()}

    def _proposal(self, position: int, logits: Floats) -> Proposal:
        proposal = propose(
            logits,
            temperature=self.temperature,
            seed=self.seed,
            iteration=self.iteration,
            position=position,
        )
        if proposal.word in self.last:
            return Proposal(proposal.word, -math.inf, math.inf)
        if not self.uncounted:
            return proposal
        counted = logits.copy()
        counted[list(self.uncounted)] = -np.inf
        weights = softmax(counted)
        doubt = float(np.delete(weights, proposal.word).sum())
        return Proposal(proposal.word, float(weights[proposal.word]), doubt)

    def relaxed(self, threshold: float) -> float:
        """max(threshold, 1 - relaxation * t): strict at first (dInfer, arXiv 2510.08666)."""
        if self.relaxation is None:
            return threshold
        return max(threshold, 1 - self.relaxation * self.iteration)


def is_last(proposal: Proposal) -> bool:
    """Whether it commits only when nothing else is left."""
    return math.isinf(proposal.doubt)


def best_first(positions: list[int], proposals: Commits) -> list[int]:
    return sorted(positions, key=lambda i: (proposals[i].doubt, i))


def in_order(view: View, proposals: Commits, order: str) -> list[int]:
    """The masked positions, those first that commit first."""
    keys: dict[str, Callable[[int], float]] = {
        "confidence": lambda i: proposals[i].doubt,
        "margin": lambda i: lead_doubt(view.logits[i]),
        "entropy": lambda i: entropy(view.logits[i]),
        "random": lambda i: -random_order(view.seed, view.iteration, i),
    }
    last = {i for i in view.masked if is_last(proposals[i])}
    return sorted(view.masked, key=lambda i: (math.inf if i in last else keys[order](i), i))
