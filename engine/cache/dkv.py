"""dKV-Cache (arXiv 2505.15781), restricted to the active block.

A forward recomputes the positions that are still masked and those that the forward before has
committed. So the K and V of a token are written one forward after it was committed, and then kept.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.cache.base import (
    CachePolicy,
    SpanKind,
    Spans,
    check_refresh_every,
    is_due,
    refresh,
)
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class DelayedCache(CachePolicy):
    """Recomputes a position until one forward after its commit.

    Raises:
        UserError: a field out of range.
    """

    refresh_every_iterations: int | None = 8
    """Refresh every this many forwards; null: only in the first forward of a sequence."""
    serves_edits: ClassVar[bool] = False
    may_skip_cached: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_spans(self, s: Sequences) -> Spans:
        enters_B = s.num_iterations_in_block == 0
        start_B = np.where(enters_B, s.previous_block_start, s.block_start)
        uncached = Spans(start_B, s.block_end, SpanKind.BLOCK, skips_cached=True)
        return Spans.where(is_due(s, self.refresh_every_iterations), refresh(s), uncached)
