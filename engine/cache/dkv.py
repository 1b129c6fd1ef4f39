"""dKV-Cache (arXiv 2505.15781), restricted to the active block.

A forward recomputes the positions that are still masked and those that the forward before has
committed. So the K and V of a token are written one forward after it was committed, and then kept.
"""

from dataclasses import dataclass
from typing import ClassVar

from engine.cache.base import (
    CachePolicy,
    Span,
    SpanKind,
    check_refresh_every,
    is_due,
    refresh,
)
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class DelayedCache(CachePolicy):
    """Recomputes a position until one forward after its commit.

    Raises:
        UserError: a field out of range.
    """

    refresh_every_iterations: int | None = 8
    """Refresh every this many forwards; null: only in the first forward of a sequence."""
    serves_edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_span(self, sequence: Sequence) -> Span:
        if is_due(sequence, self.refresh_every_iterations):
            return refresh(sequence)
        positions = sorted(sequence.uncached_positions.union(sequence.masked_positions))
        return Span(positions, SpanKind.BLOCK)
