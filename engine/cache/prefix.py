"""Fast-dLLM's prefix cache (arXiv 2505.22618): recomputes the active block and all that follows.

The K and V of the prompt and the finished blocks are kept while a block is denoised, and refreshed
when the next block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Span, SpanKind, refresh
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class PrefixCache(CachePolicy):
    """Refreshes on entering a block, then recomputes the block and all positions after it."""

    def next_span(self, sequence: Sequence) -> Span:
        if sequence.num_iterations_in_block == 0:
            return refresh(sequence)
        return Span(range(sequence.block_start, sequence.canvas_len), SpanKind.BLOCK)
