"""The commit cache: recomputes each finished block once, and refreshes only in the first forward.

The next block's first forward also covers the finished block, and writes the K and V of its final
tokens. Positions after the active block keep the K and V of the sequence's first forward. This is
the commit pass of block diffusion (arXiv 2503.09573) on a bidirectional model, where it is an
approximation.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, Span, SpanKind, refresh
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class CommitCache(CachePolicy):
    """Recomputes the active block, and in its first forward also the block before it."""

    def next_span(self, sequence: Sequence) -> Span:
        if sequence.num_iterations == 0:
            return refresh(sequence)
        if sequence.num_iterations_in_block == 0:
            both = range(sequence.previous_block_start, sequence.block_end)
            return Span(both, SpanKind.COMMIT)
        return Span(range(sequence.block_start, sequence.block_end), SpanKind.BLOCK)
