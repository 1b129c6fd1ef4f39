"""dKV-Cache (arXiv 2505.15781), within the active block: a token's K and V are written one forward
after it was committed and then kept; a forward recomputes what is still masked, and what was
committed in the forward before."""

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
    """
    Raises:
        ValueError: a field out of range.
    """

    refresh_every_iterations: int | None = 8
    """The whole canvas is renewed once in so many forwards; null: only in the first."""
    serves_edits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_span(self, sequence: Sequence) -> Span:
        if is_due(sequence, self.refresh_every_iterations):
            return refresh(sequence)
        positions = sorted(sequence.uncached_positions.union(sequence.masked_positions))
        return Span(positions, SpanKind.BLOCK)
