"""Fast-dLLM's dual cache (arXiv 2505.22618): recomputes only the active block.

The K and V of the prompt, the finished blocks and the masked suffix are kept while a block is
denoised, and refreshed when the next block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Span, SpanKind, refresh
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class DualCache(CachePolicy):
    """Refreshes on entering a block, then recomputes the block."""

    def next_span(self, sequence: Sequence) -> Span:
        if sequence.num_iterations_in_block == 0:
            return refresh(sequence)
        return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)
