"""No cache: recomputes the whole canvas in every iteration, as LLaDA does (arXiv 2502.09992).

Under block-causal attention no position attends to the blocks after the active one, so these are
left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from engine.cache.base import CachePolicy, Span, SpanKind
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class NoCache(CachePolicy):
    """Makes every forward a refresh."""

    serves_block_causal: ClassVar[bool] = True

    def next_span(self, sequence: Sequence) -> Span:
        return Span(range(sequence.visible_end), SpanKind.REFRESH)
