"""Fast-dLLM's dual cache (arXiv 2505.22618): recomputes only the active block.

The K and V of the prompt, the finished blocks and the masked suffix are kept while a block is
denoised, and refreshed when the next block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Spans, active_block, refresh
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class DualCache(CachePolicy):
    """Refreshes on entering a block, then recomputes the block."""

    def next_spans(self, s: Sequences) -> Spans:
        return Spans.where(s.num_iterations_in_block == 0, refresh(s), active_block(s))
