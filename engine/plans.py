"""What one forward computes: which sequences take part, their spans, their requested positions.

Shape letters: B sequences of the plan (or all live ones, before they are chosen); Q query tokens,
in plan order; M requested positions (those whose logits are computed) of all active blocks, ordered
by sequence, then by position; L positions of a block.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.cache.base import SpanKind, Spans, Values
from engine.sequences import LiveSequences, Sequences

Places = np.ndarray | slice
"""Which of the live sequences, in which order: int64, or slice(None) for all in their own order."""
ALL = slice(None)


class QueryTokens(NamedTuple):
    """The query tokens of spans that leave out positions, one by one."""

    sequence_Q: np.ndarray
    """int64, ascending: index 0 .. B-1."""
    position_Q: np.ndarray
    """int64: canvas positions, ascending within a sequence."""
    slots_Q: np.ndarray


class Asked(NamedTuple):
    """The requested positions, int64."""

    sequence_M: np.ndarray
    """Ascending: index 0 .. B-1 of the sequence in the plan."""
    place_M: np.ndarray
    """Place of the sequence in LiveSequences."""
    offset_M: np.ndarray
    """Position within the active block."""
    position_M: np.ndarray
    """Canvas position."""
    slots_M: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sequences that take part in a forward, with their spans. Valid until the next sequence is
    admitted or retired."""

    s: Sequences
    """All live sequences."""
    places: Places
    """Those of the plan, in order of priority, but those with guidance last."""
    num_guided: int
    """So many of them, the last ones, have a twin: the forward computes the same positions of
    both canvases (engine/guidance.py)."""
    decoding: Places
    """Those of them whose logits are computed."""
    num_decoding: int
    start_B: np.ndarray
    end_B: np.ndarray
    """The end of each span."""
    kind: Values
    """SpanKind."""
    span_lens_B: np.ndarray
    """Query tokens of each sequence without those of its twin."""
    num_query_tokens_B: np.ndarray
    num_query_tokens: int
    asked: Asked
    opens_B: np.ndarray | None
    """bool: whether the forward opens the sequence's block, and only the block's first position is
    requested; None if it does for no live sequence."""
    query_tokens: QueryTokens | None
    """If the policy may leave out positions. If not, all from start to end are query tokens."""

    def __len__(self) -> int:
        return self.start_B.size

    def by_kind(self) -> list[tuple[int, int, int]]:
        """The kinds of spans in the plan (SpanKind); how many sequences, and how many query tokens,
        each has."""
        if isinstance(self.kind, int):
            return [(self.kind, len(self), self.num_query_tokens)]
        counts = np.bincount(self.kind, minlength=len(SpanKind)).tolist()
        lengths = np.bincount(self.kind, self.num_query_tokens_B, len(SpanKind)).tolist()
        kinds = enumerate(zip(counts, lengths, strict=True))
        return [(kind, count, int(length)) for kind, (count, length) in kinds if count]


@dataclass(frozen=True, slots=True)
class Needs:
    """What every live sequence needs next."""

    live: LiveSequences
    spans: Spans
    is_shifted: bool

    def num_query_tokens(self) -> np.ndarray:
        """Length of each live sequence's span, [B]; twice that with guidance."""
        if self.live.is_uncached_S is not None:
            lens_B = np.bincount(self._query_tokens(ALL).sequence_Q, minlength=len(self.live))
        else:
            assert self.spans.skips_cached is False, "a policy that leaves out positions says so"
            lens_B = self._array(self.spans.end - self.spans.start)
        if self.live.num_guided:
            lens_B = lens_B * self._num_canvases_of(ALL)
        return lens_B

    def plan(self, places: Places, num_query_tokens_B: np.ndarray) -> Plan:
        """The plan of these sequences; `num_query_tokens_B` are those of all live ones."""
        s, spans, num_guided = self.live.arrays, self.spans, 0
        if self.live.num_guided:
            places, num_guided = self._guided_last(places)
        end_B, lengths_B, query_tokens = (
            self._array(spans.end)[places],
            num_query_tokens_B[places],
            None,
        )
        cost_B = lengths_B
        if num_guided:
            lengths_B = cost_B // self._num_canvases_of(places)
        if self.live.is_uncached_S is not None:
            query_tokens = self._query_tokens(places)
            end_B = query_tokens.position_Q[np.cumsum(lengths_B) - 1] + 1
        decoding, num_decoding, asked_BL = places, lengths_B.size, s.is_asked_BL[places]
        if spans.is_decoding is not True:
            is_decoding_B = self._array(spans.is_decoding)[places]
            decoding = np.arange(len(self.live))[places][is_decoding_B]
            num_decoding, asked_BL = decoding.size, asked_BL & is_decoding_B[:, None]
        opens_B = s.opens[places] if np.count_nonzero(s.opens) else None
        if opens_B is not None:
            is_first_L = np.arange(asked_BL.shape[1]) == 0
            asked_BL = asked_BL & (is_first_L | ~opens_B[:, None])
        return Plan(
            s=s,
            places=places,
            num_guided=num_guided,
            decoding=decoding,
            num_decoding=num_decoding,
            start_B=self._array(spans.start)[places],
            end_B=end_B,
            kind=spans.kind if isinstance(spans.kind, int) else spans.kind[places],
            span_lens_B=lengths_B,
            num_query_tokens_B=cost_B,
            num_query_tokens=int(np.add.reduce(cost_B)),
            asked=_asked(s, places, asked_BL),
            opens_B=opens_B,
            query_tokens=query_tokens,
        )

    def _query_tokens(self, places: Places) -> QueryTokens:
        """The positions of the spans without those that are left out: neither masked, nor in need
        of new K and V, nor the source of a requested position's shifted logits."""
        s, spans = self.live.arrays, self.spans
        start_B, end_B, skips_B = (
            self._array(value)[places] for value in (spans.start, spans.end, spans.skips_cached)
        )
        is_uncached_S, place_B = self.live.is_uncached_S, np.arange(len(self.live))[places]
        assert is_uncached_S is not None, "the policy does not say may_skip_cached"
        sequence_Q, position_Q = runs_of(start_B, end_B - start_B)
        place_Q = place_B[sequence_Q]
        slots_Q = position_Q + s.first_slot[place_Q]
        offset_Q = position_Q - s.block_start[place_Q]
        is_kept_Q = ~skips_B[sequence_Q] | is_uncached_S[slots_Q]
        is_kept_Q |= _at(s.is_masked_BL, place_Q, offset_Q)
        if self.is_shifted:
            is_kept_Q |= _at(s.is_asked_BL, place_Q, offset_Q + 1)
        return QueryTokens(sequence_Q[is_kept_Q], position_Q[is_kept_Q], slots_Q[is_kept_Q])

    def _num_canvases_of(self, places: Places) -> np.ndarray:
        return 1 + (self.live.arrays.twin_offset[places] > 0)

    def _guided_last(self, places: Places) -> tuple[np.ndarray, int]:
        """The same sequences, those with guidance behind the others; and how many these are."""
        place_B = np.arange(len(self.live))[places]
        has_twin_B = self.live.arrays.twin_offset[place_B] > 0
        ordered = np.concatenate((place_B[~has_twin_B], place_B[has_twin_B]))
        return ordered, int(np.count_nonzero(has_twin_B))

    def _array(self, value: Values) -> np.ndarray:
        return value if isinstance(value, np.ndarray) else np.full(len(self.live), value)


def raise_at(values: np.ndarray, places: Places, by: Values) -> None:
    """Raise the values of these sequences, [B] or several rows of them, in place."""
    if isinstance(places, slice):
        np.add(values, by, out=values)
    else:
        values[..., places] += by


def runs_of(start_B: np.ndarray, lengths_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index, number) of every number start .. start + length - 1 of every entry, one after the
    other."""
    index = np.repeat(np.arange(start_B.size), lengths_B)
    before_B = lengths_B.cumsum() - lengths_B
    return index, np.arange(index.size) + (start_B - before_B)[index]


def _asked(s: Sequences, places: Places, asked_BL: np.ndarray) -> Asked:
    sequence_M, offset_M = asked_BL.nonzero()
    place_M = sequence_M if isinstance(places, slice) else places[sequence_M]
    position_M = s.block_start.take(place_M) + offset_M
    slots_M = s.first_slot.take(place_M) + position_M
    return Asked(sequence_M, place_M, offset_M, position_M, slots_M)


def _at(values_BL: np.ndarray, place_Q: np.ndarray, offset_Q: np.ndarray) -> np.ndarray:
    """The values at these offsets of the active blocks, False outside them."""
    is_inside_Q = (offset_Q >= 0) & (offset_Q < values_BL.shape[1])
    return values_BL[place_Q, offset_Q.clip(0, values_BL.shape[1] - 1)] & is_inside_Q
