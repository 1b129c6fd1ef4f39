"""Fast-dLLM's prefix cache (arXiv 2505.22618): recomputes the active block and all that follows.

The K and V of the prompt and the finished blocks are kept while a block is denoised, and refreshed
when the next block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, SpanKind, Spans, refresh
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class PrefixCache(CachePolicy):
    """Refreshes on entering a block, then recomputes the block and all positions after it."""

    def next_spans(self, s: Sequences) -> Spans:
        rest = Spans(s.block_start, s.canvas_len, SpanKind.BLOCK)
        return Spans.where(s.num_iterations_in_block == 0, refresh(s), rest)
