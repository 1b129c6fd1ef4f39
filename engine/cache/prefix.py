"""Fast-dLLM's prefix cache (arXiv 2505.22618): K and V of the prompt and of finished blocks are
kept while a block is denoised; the block and the whole masked suffix are recomputed."""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Span, SpanKind, refresh
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class PrefixCache(CachePolicy):
    def next_span(self, sequence: Sequence) -> Span:
        if sequence.num_iterations_in_block == 0:
            return refresh(sequence)
        return Span(range(sequence.block_start, sequence.canvas_len), SpanKind.BLOCK)
