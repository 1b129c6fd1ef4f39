"""No reuse: the whole canvas in every iteration, as in LLaDA's own procedure (arXiv 2502.09992).

Under block-causal attention nothing sees the blocks behind the active one, so they are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from engine.cache.base import CachePolicy, Span, SpanKind
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class NoCache(CachePolicy):
    serves_block_causal: ClassVar[bool] = True

    def next_span(self, sequence: Sequence) -> Span:
        return Span(range(sequence.visible_end), SpanKind.REFRESH)
