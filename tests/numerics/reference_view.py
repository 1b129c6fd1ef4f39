"""What a reference decoder sees of one forward, and how positions are ordered.

"Best first" orders positions by the probability of all words but the proposed one, least first;
ties go to the earlier position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.numerics.reference_words import (
    Floats,
    Proposal,
    entropy,
    lead_doubt,
    propose,
    random_order,
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
    num_masked_at_block_start: int
    iteration: int
    iteration_in_block: int
    temperature: float
    seed: int
    relaxation: float | None
    """With soft iteration, how much the lower limit of confidence thresholds falls per forward."""
    memory: dict[str, Any]
    """What the strategy keeps from forward to forward; emptied when a block is entered."""

    def propose(self, logits: dict[int, Floats] | None = None) -> Commits:
        return {
            i: propose(
                z,
                temperature=self.temperature,
                seed=self.seed,
                iteration=self.iteration,
                position=i,
            )
            for i, z in (logits or self.logits).items()
        }

    def relaxed(self, threshold: float) -> float:
        """max(threshold, 1 - relaxation * t): strict at first (dInfer, arXiv 2510.08666)."""
        if self.relaxation is None:
            return threshold
        return max(threshold, 1 - self.relaxation * self.iteration)


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
    return sorted(view.masked, key=lambda i: (keys[order](i), i))
