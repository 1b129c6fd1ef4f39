"""The contract of a cache policy: what must a sequence recompute in its next forward?

A policy is a frozen dataclass: its fields are its settings, and it keeps nothing between calls.
What it decides from (block, iteration in the block) belongs to the sequence, so that no sequence's
result can depend on its neighbours.
"""

from enum import StrEnum
from typing import NamedTuple, Protocol

from engine.request import Sequence


class SpanKind(StrEnum):
    REFRESH = "refresh"
    BLOCK = "block"


class Span(NamedTuple):
    """Canvas positions start .. end-1, fed through the model; their K and V are overwritten.

    The query tokens attend to the sequence's whole canvas: to K and V just written inside the
    span, and to what earlier forwards left in the pages outside it.
    """

    start: int
    end: int
    kind: SpanKind


class CachePolicy(Protocol):
    def next_span(self, sequence: Sequence) -> Span:
        """The span of the sequence's next forward. It holds every masked position of the active
        block, and the first span of a sequence is its whole canvas."""
        ...
