"""dInfer's vicinity refresh (arXiv 2510.08666): recomputes the active block and its surroundings.

The K and V of the positions around the block change most, so they are recomputed with it. All
others are refreshed when a block is entered.
"""

from dataclasses import dataclass

import numpy as np

from engine.cache.base import (
    CachePolicy,
    SpanKind,
    Spans,
    check_refresh_every,
    is_due,
    refresh,
)
from engine.errors import UserError
from engine.sequences import Sequences


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
    warmup: int = 4
    """dInfer's `warmup_steps`: this many forwards at the start of a sequence, which fill no cache
    in dInfer, and the forward after them, which fills it, are refreshes."""
    refresh_every_blocks: int = 1
    """Refresh on entering a block whose index is a multiple of this. On entering any other block,
    recompute the finished block too."""
    refresh_every_iterations: int | None = None
    """In addition, refresh at least once in this many forwards; null: no such limit."""

    def __post_init__(self) -> None:
        for name, least in (
            ("behind", 0),
            ("ahead", 0),
            ("warmup", 0),
            ("refresh_every_blocks", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"cache.{name}={getattr(self, name)}: give at least {least}")
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_spans(self, s: Sequences) -> Spans:
        enters_B = s.num_iterations_in_block == 0
        is_refresh_B = (
            (s.num_iterations <= self.warmup)
            | is_due(s, self.refresh_every_iterations)
            | (enters_B & (s.block_index % self.refresh_every_blocks == 0))
        )
        start_B = s.block_start - self.behind
        start_B = np.where(enters_B, np.minimum(start_B, s.previous_block_start), start_B)
        end_B = np.minimum(s.block_end + self.ahead, s.canvas_len)
        kind_B = np.where(enters_B, SpanKind.COMMIT, SpanKind.BLOCK)
        around = Spans(np.maximum(start_B, 0), end_B, kind_B)
        return Spans.where(is_refresh_B, refresh(s), around)
