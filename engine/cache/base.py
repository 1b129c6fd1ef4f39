"""The contract of a cache policy, which says what each sequence recomputes in its next forward.

A policy is a frozen dataclass: its fields are its settings, and it keeps nothing between calls.
It decides for all live sequences at once, with arrays that have one place per sequence. What it
says of a sequence depends only on the values at that sequence's place (its block, the iteration in
the block, what is cached), so a sequence's result cannot depend on the others in the batch.
"""

from enum import IntEnum
from typing import ClassVar, NamedTuple

import numpy as np

from engine.errors import UserError
from engine.sequences import Sequences

Values = np.ndarray | int
"""One value per sequence, [B], or one for all."""


class SpanKind(IntEnum):
    """The kinds of forwards that the statistics tell apart."""

    REFRESH = 0
    """Recomputes the whole canvas. Under block-causal attention, either all that the active block
    attends to, or the forwards that first compute the prompt."""
    BLOCK = 1
    """Recomputes the active block or a part of it, and what the policy adds to it."""
    COMMIT = 2
    """Recomputes the block that was just finished, alone or with the next block, to write the K and
    V of its tokens."""
    EDIT = 3
    """Recomputes a block that has no mask left, to see whether the strategy edits its tokens."""


class Spans(NamedTuple):
    """The canvas positions start .. end - 1 that one forward of each sequence feeds through the
    model; their K and V are overwritten.

    The query tokens attend to all that the model lets them see: the whole canvas or, under
    block-causal attention, their own block and all blocks before it. Inside the span they attend to
    the K and V that this forward writes, outside it to those that earlier forwards left in the
    pages.
    """

    start: Values
    end: Values
    kind: Values
    """SpanKind."""
    is_decoding: Values = True
    """bool: whether the forward computes logits at the sequence's requested positions; the span
    then contains all of them. If not, the forward only writes K and V."""
    skips_cached: Values = False
    """bool: whether to leave out the positions whose K and V are those of their committed tokens.
    Only for policies that say so in `may_skip_cached`."""

    @staticmethod
    def where(condition_B: np.ndarray, a: "Spans", b: "Spans") -> "Spans":
        """The spans of `a` where the condition holds, of `b` elsewhere."""
        num_true = np.count_nonzero(condition_B)
        if num_true == 0:
            return b
        if num_true == condition_B.size:
            return a
        pairs = zip(a, b, strict=True)
        return Spans(*(x if x is y else _where(condition_B, x, y) for x, y in pairs))


def _where(condition_B: np.ndarray, x: Values, y: Values) -> np.ndarray:
    # numpy takes several times as long to see that a SpanKind is a number.
    plain = (value.value if isinstance(value, SpanKind) else value for value in (x, y))
    return np.where(condition_B, *plain)


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
    may_skip_cached: ClassVar[bool] = False
    """Whether spans may leave out cached positions; the host then keeps account of them."""

    def next_spans(self, s: Sequences) -> Spans:
        """The span of each sequence's next forward."""
        raise NotImplementedError


def refresh(s: Sequences) -> Spans:
    """A refresh: the span over the whole canvas."""
    return Spans(0, s.canvas_len, SpanKind.REFRESH)


def active_block(s: Sequences) -> Spans:
    """The span over the active block."""
    return Spans(s.block_start, s.block_end, SpanKind.BLOCK)


def is_due(s: Sequences, refresh_every_iterations: int | None) -> np.ndarray:
    """Whether the next forward must be a refresh, bool [B]: a sequence's first forward always,
    later ones so that any `refresh_every_iterations` consecutive forwards contain one."""
    is_first_B = s.num_iterations == 0
    if refresh_every_iterations is None:
        return is_first_B
    return is_first_B | (s.num_iterations_since_refresh >= refresh_every_iterations - 1)


def check_refresh_every(field: str, value: int | None) -> None:
    """
    Raises:
        UserError: `value` is below 1.
    """
    if value is not None and value < 1:
        raise UserError(f"cache.{field}={value}: give at least 1, or null for never")
