"""No reuse: the whole canvas in every iteration, as in LLaDA's own procedure (arXiv 2502.09992)."""

from dataclasses import dataclass

from engine.cache.base import Span, SpanKind
from engine.request import Sequence


@dataclass(frozen=True, slots=True)
class NoCache:
    def next_span(self, sequence: Sequence) -> Span:
        return Span(0, sequence.canvas_len, SpanKind.REFRESH)
