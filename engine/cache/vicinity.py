"""dInfer's vicinity refresh (arXiv 2510.08666): recomputes the active block and its surroundings.

The K and V of the positions around the block change most, so they are recomputed with it. All
others are refreshed when a block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import (
    CachePolicy,
    Span,
    SpanKind,
    check_refresh_every,
    is_due,
    refresh,
)
from engine.errors import UserError
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class VicinityCache(CachePolicy):
    """Recomputes the active block with `behind` and `ahead` positions around it.

    Raises:
        UserError: a field out of range.
    """

    behind: int = 16
    """Positions before the block that are recomputed with it."""
    ahead: int = 16
    """Positions after the block that are recomputed with it."""
    warmup_iterations: int = 4
    """This many forwards at the start of a sequence are refreshes."""
    refresh_every_blocks: int = 1
    """Refresh on entering a block whose index is a multiple of this. On entering any other block,
    recompute the finished block too."""
    refresh_every_iterations: int | None = None
    """In addition, refresh at least once in this many forwards; null: no such limit."""

    def __post_init__(self) -> None:
        for name, least in (
            ("behind", 0),
            ("ahead", 0),
            ("warmup_iterations", 0),
            ("refresh_every_blocks", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"cache.{name}={getattr(self, name)}: give at least {least}")
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_span(self, sequence: Sequence) -> Span:
        enters = sequence.num_iterations_in_block == 0
        if (
            sequence.num_iterations < self.warmup_iterations
            or is_due(sequence, self.refresh_every_iterations)
            or (enters and sequence.block_index % self.refresh_every_blocks == 0)
        ):
            return refresh(sequence)
        start = sequence.block_start - self.behind
        if enters:
            start = min(start, sequence.previous_block_start)
        end = min(sequence.block_end + self.ahead, sequence.canvas_len)
        return Span(range(max(start, 0), end), SpanKind.COMMIT if enters else SpanKind.BLOCK)
