"""No cache: recomputes the whole canvas in every iteration, as LLaDA does (arXiv 2502.09992).

Under block-causal attention no position attends to the blocks after the active one, so these are
left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from engine.cache.base import CachePolicy, SpanKind, Spans
from engine.sequences import Sequences


@dataclass(frozen=True, slots=True)
class NoCache(CachePolicy):
    """Makes every forward a refresh."""

    serves_block_causal: ClassVar[bool] = True

    def next_spans(self, s: Sequences) -> Spans:
        return Spans(0, s.visible_end, SpanKind.REFRESH)
