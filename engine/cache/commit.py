"""The commit cache: recomputes each finished block once, and refreshes only in the first forward.

The next block's first forward also covers the finished block, and writes the K and V of its final
tokens. Positions after the active block keep the K and V of the sequence's first forward. This is
the commit pass of block diffusion (arXiv 2503.09573) on a bidirectional model, where it is an
approximation.
"""

from dataclasses import dataclass

from engine.cache.base import CachePolicy, SpanKind, Spans, active_block, refresh
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class CommitCache(CachePolicy):
    """Recomputes the active block, and in its first forward also the block before it."""

    def next_spans(self, s: Sequences) -> Spans:
        both = Spans(s.previous_block_start, s.block_end, SpanKind.COMMIT)
        later = Spans.where(s.num_iterations_in_block == 0, both, active_block(s))
        return Spans.where(s.num_iterations == 0, refresh(s), later)
