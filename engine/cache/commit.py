"""No full refresh: a finished block is recomputed once, in the next block's first forward, which
writes the K and V of its tokens. What lies behind the active block stays as the first forward left
it. (The commit pass of block diffusion, arXiv 2503.09573, on a bidirectional model, where it is an
approximation.)"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Span, SpanKind, refresh
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class CommitCache(CachePolicy):
    def next_span(self, sequence: Sequence) -> Span:
        if sequence.num_iterations == 0:
            return refresh(sequence)
        if sequence.num_iterations_in_block == 0:
            both = range(sequence.previous_block_start, sequence.block_end)
            return Span(both, SpanKind.COMMIT)
        return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)
