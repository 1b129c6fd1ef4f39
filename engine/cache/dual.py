"""Fast-dLLM's dual cache (arXiv 2505.22618): recomputes only the active block.

The K and V of the prompt, the finished blocks and the masked suffix are kept while a block is
denoised, and refreshed when the next block is entered.
"""

from dataclasses import dataclass

from engine.cache.base import (
    CachePolicy,
    Spans,
    active_block,
    check_refresh_every,
    is_due,
    refresh,
)
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class DualCache(CachePolicy):
    """Refreshes on entering a block, then recomputes the block.

    Raises:
        UserError: a field out of range.
    """

    refresh_every_iterations: int | None = None
    """In addition, refresh at least once in this many forwards; null: no such limit. The forwards
    since the last refresh are counted, while dInfer's `cache_update_freq` refreshes at each
    multiple of the number of a call, counted over the whole sequence."""

    def __post_init__(self) -> None:
        check_refresh_every("refresh_every_iterations", self.refresh_every_iterations)

    def next_spans(self, s: Sequences) -> Spans:
        # A sequence's first forward enters a block.
        is_refresh_B = s.num_iterations_in_block == 0
        if self.refresh_every_iterations is not None:
            is_refresh_B |= is_due(s, self.refresh_every_iterations)
        return Spans.where(is_refresh_B, refresh(s), active_block(s))
