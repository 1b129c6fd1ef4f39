"""dInfer's vicinity refresh (arXiv 2510.08666): the block is recomputed together with the positions
around it, whose K and V change most; the rest is renewed when a block is entered."""

from dataclasses import dataclass

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
class VicinityCache(CachePolicy):
    """
    Raises:
        ValueError: a field out of range.
    """

    behind: int = 16
    """Positions before the block that are recomputed with it."""
    ahead: int = 16
    """Positions behind it."""
    warmup_iterations: int = 4
    """A sequence's first forwards, all over the whole canvas."""
    refresh_every_blocks: int = 1
    """The whole canvas is renewed on entering every so many blocks. On entering another, the
    finished block is recomputed too."""
    refresh_every_iterations: int | None = None
    """And at least once in so many forwards; null: only as the fields above say."""

    def __post_init__(self) -> None:
        for name, least in (
            ("behind", 0),
            ("ahead", 0),
            ("warmup_iterations", 0),
            ("refresh_every_blocks", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"cache.{name}={getattr(self, name)}: give at least {least}")
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
