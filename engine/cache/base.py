"""The contract of a cache policy, which says what a sequence recomputes in its next forward.

A policy is a frozen dataclass: its fields are its settings, and it keeps nothing between calls.
It decides only from the state of one sequence (its block, the iteration in the block, what is
cached), so a sequence's result cannot depend on the others in the batch.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from engine.errors import UserError
from engine.request import Positions, Sequence


class SpanKind(StrEnum):
    """The kinds of forwards that the statistics tell apart."""

    REFRESH = "refresh"
    """Recomputes the whole canvas. Under block-causal attention, either all that the active block
    attends to, or the forwards that first compute the prompt."""
    BLOCK = "block"
    """Recomputes the active block or a part of it, and what the policy adds to it."""
    COMMIT = "commit"
    """Recomputes the block that was just finished, alone or with the next block, to write the K and
    V of its tokens."""
    EDIT = "edit"
    """Recomputes a block that has no mask left, to see whether the strategy edits its tokens."""


@dataclass(frozen=True, slots=True)
class Span:
    """The canvas positions that one forward feeds through the model; their K and V are overwritten.

    The query tokens attend to all that the model lets them see: the whole canvas or, under
    block-causal attention, their own block and all blocks before it. Inside the span they attend to
    the K and V that this forward writes, outside it to those that earlier forwards left in the
    pages. A span is contiguous unless the policy leaves out positions that are already cached.
    """

    positions: Positions
    kind: SpanKind
    is_decoding: bool = True
    """Whether the forward computes logits at the sequence's requested positions; the span then
    contains all of them. If not, the forward only writes K and V."""

    @property
    def num_query_tokens(self) -> int:
        return len(self.positions)


class CachePolicy:
    """Base of all policies.

    All K and V that a span attends to must have been written, by the span itself or by an earlier
    span of the same sequence.
    """

    __slots__ = ()

    serves_bidirectional: ClassVar[bool] = True
    """Whether the policy works with bidirectional models."""
    serves_block_causal: ClassVar[bool] = False
    """Whether the policy works with block-causal models."""
    serves_edits: ClassVar[bool] = True
    """Whether the policy works with strategies that edit: its spans must then contain the committed
    positions of the active block, whose tokens may still change."""

    def next_span(self, sequence: Sequence) -> Span:
        """The span of the sequence's next forward."""
        raise NotImplementedError


def with_sources(span: Span, sequence: Sequence) -> Span:
    """Extend a span for a model with shifted logits, where the logits of a position are computed at
    the position before it: that one must be in the span as well."""
    positions, asked = span.positions, sequence.asked_positions
    if not asked or not span.is_decoding:
        return span
    if isinstance(positions, range):
        return replace(span, positions=range(min(positions.start, asked[0] - 1), positions.stop))
    return replace(span, positions=sorted({*positions, *(position - 1 for position in asked)}))


def refresh(sequence: Sequence) -> Span:
    """A refresh: the span over the whole canvas."""
    return Span(range(sequence.canvas_len), SpanKind.REFRESH)


def is_due(sequence: Sequence, refresh_every_iterations: int | None) -> bool:
    """Whether the next forward must be a refresh: the sequence's first forward always, later ones
    so that any `refresh_every_iterations` consecutive forwards contain one."""
    if sequence.num_iterations == 0:
        return True
    if refresh_every_iterations is None:
        return False
    return sequence.num_iterations_since_refresh >= refresh_every_iterations - 1


def check_refresh_every(field: str, value: int | None) -> None:
    """
    Raises:
        UserError: `value` is below 1.
    """
    if value is not None and value < 1:
        raise UserError(f"cache.{field}={value}: give at least 1, or null for never")
