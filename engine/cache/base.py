"""The contract of a cache policy: what must a sequence recompute in its next forward?

A policy is a frozen dataclass: its fields are its settings, and it keeps nothing between calls.
What it decides from (block, iteration in the block, what is cached) belongs to the sequence, so
that no sequence's result can depend on its neighbours.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from engine.request import Positions, Sequence


class SpanKind(StrEnum):
    REFRESH = "refresh"
    """The whole canvas, or, under block-causal attention, the prompt's first forward."""
    BLOCK = "block"
    COMMIT = "commit"
    """Writes the final K and V of a finished block."""
    EDIT = "edit"
    """A block with no mask left, asked whether its tokens still stand."""


@dataclass(frozen=True, slots=True)
class Span:
    """Canvas positions fed through the model; their K and V are overwritten.

    The query tokens attend to all that the model lets them see (the whole canvas, or, under
    block-causal attention, their own block and all before it): to K and V just written inside the
    span, and to what earlier forwards left in the pages outside it. A span is contiguous, but
    where a policy leaves out what is cached already.
    """

    positions: Positions
    kind: SpanKind
    is_decoding: bool = True
    """Whether logits are computed at the sequence's asked positions, all of which the span then
    holds. A span that is not decoding writes K and V, and no more."""

    @property
    def num_query_tokens(self) -> int:
        return len(self.positions)


class CachePolicy:
    """Base of all policies. What a span reads, it or an earlier one of its sequence has written."""

    __slots__ = ()

    serves_bidirectional: ClassVar[bool] = True
    serves_block_causal: ClassVar[bool] = False
    serves_edits: ClassVar[bool] = True
    """Whether its spans hold the committed positions of the active block, whose tokens may still
    change."""

    def next_span(self, sequence: Sequence) -> Span:
        """The span of the sequence's next forward."""
        raise NotImplementedError


def with_sources(span: Span, sequence: Sequence) -> Span:
    """The span of a model whose logits are shifted: with the positions that the logits of the asked
    positions come from, each the one before."""
    positions, asked = span.positions, sequence.asked_positions
    if not asked or not span.is_decoding:
        return span
    if isinstance(positions, range):
        return replace(span, positions=range(min(positions.start, asked[0] - 1), positions.stop))
    return replace(span, positions=sorted({*positions, *(position - 1 for position in asked)}))


def refresh(sequence: Sequence) -> Span:
    """The whole canvas."""
    return Span(range(sequence.canvas_len), SpanKind.REFRESH)


def is_due(sequence: Sequence, refresh_every_iterations: int | None) -> bool:
    """Whether the sequence's next forward must be a refresh, for there to be one in every
    `refresh_every_iterations` forwards, and one at the start."""
    if sequence.num_iterations == 0:
        return True
    if refresh_every_iterations is None:
        return False
    return sequence.num_iterations_since_refresh >= refresh_every_iterations - 1


def check_refresh_every(field: str, value: int | None) -> None:
    """Raises: ValueError: below 1."""
    if value is not None and value < 1:
        raise ValueError(f"cache.{field}={value}: give at least 1, or null for never")
