"""What the host keeps of the live sequences: one array per field, one place in it per sequence.

The canvases themselves are on the device (engine/canvas.py). The arrays are updated from the
commits that the host reads once per iteration, and everything that happens between that read and
the next forward is computed for all sequences at once.

Shape letters: B live sequences, in order of admission; L positions of a block; S slots.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from engine.request import Request
from engine.sampling import filters_of

NO_TOKEN = -1
"""Stands in `Sequences.token_S` at positions that have no committed token."""


def whole_blocks(num_tokens: int, attn_block_length: int | None) -> int:
    """Length of the canvas that holds `num_tokens`: under block-causal attention, rounded up to
    whole attention blocks."""
    return num_tokens + -num_tokens % (attn_block_length or 1)


@dataclass(slots=True, kw_only=True)
class Sequences:
    """The live sequences: arrays [B], int64 unless said otherwise.

    A cache policy decides from these. They are views of the memory that LiveSequences owns.
    """

    first_page: np.ndarray
    first_slot: np.ndarray
    """Slot of canvas position 0; position p is at first_slot + p."""
    canvas_len: np.ndarray
    num_prompt_tokens: np.ndarray
    end_position: np.ndarray
    """End of the tokens that the request wants. A block-causal canvas may be longer, since it is
    filled up to whole attention blocks."""
    first_block_start: np.ndarray
    """Start of the first block: the prompt's end or, under block-causal attention, the start of the
    block that holds the prompt's tail."""
    block_start: np.ndarray
    block_end: np.ndarray
    block_index: np.ndarray
    previous_block_start: np.ndarray
    attn_block_start: np.ndarray
    """Start of the attention block that holds the active block; nothing before it can change any
    more. An attention block is denoised as one block, or as several sub-blocks (arXiv 2509.26328).
    In a bidirectional model, the start of the active block."""
    visible_end: np.ndarray
    """End of the positions that the active block attends to."""
    num_masked: np.ndarray
    """Masked positions of the active block."""
    num_masked_at_block_start: np.ndarray
    num_post_iterations: np.ndarray
    """Decoding forwards in the active block that began with no mask left."""
    num_cached: np.ndarray
    """Positions 0 .. num_cached - 1 have final K and V. Only kept for block-causal attention."""
    eos_position: np.ndarray
    """The first committed EOS before `end_position`; `end_position` if there is none."""
    num_iterations: np.ndarray
    num_iterations_since_refresh: np.ndarray
    num_decoding_iterations: np.ndarray
    """Iterations that computed logits. Sampling noise is keyed by this count, so that a draw does
    not depend on additional forwards that only write K and V."""
    num_iterations_in_block: np.ndarray
    """Decoding forwards in the active block."""
    num_iterations_since_opening: np.ndarray
    """The same without an opening forward that committed the first position alone: what a strategy
    counts, for which the block begins behind that position."""
    num_refreshes: np.ndarray
    num_query_tokens: np.ndarray
    num_skipped: np.ndarray
    """Consecutive iterations whose query-token budget had no room for this sequence's span."""
    seed: np.ndarray
    twin_offset: np.ndarray
    """Slots from a canvas position to the same position of the twin canvas, which a sequence with
    guidance has (engine/guidance.py); 0: it has none."""
    temperature: np.ndarray
    """float64."""
    opens: np.ndarray
    """bool: whether the next decoding forward opens the active block, and only its first position
    may commit (engine.opening=alone)."""
    view: np.ndarray
    """How top_k, top_p and temperature change its logits (engine/sampling.py)."""
    top_k: np.ndarray
    """0: all words."""
    top_p: np.ndarray
    """float64; 1: all words."""
    guidance: np.ndarray
    """float64."""
    has_changed: np.ndarray
    """bool: whether the last decoding forward committed or replaced anything."""
    has_failed_alone: np.ndarray
    """bool: whether its last forward ran out of memory with no other sequence in it."""
    counts_2B: np.ndarray
    """num_iterations and num_iterations_since_refresh, which grow with each forward."""
    decoding_counts_3B: np.ndarray
    """num_decoding_iterations, num_iterations_in_block and num_iterations_since_opening, which grow
    with each decoding one."""
    is_masked_BL: np.ndarray
    """bool: the masked positions of the active block, counted from its start."""
    is_asked_BL: np.ndarray
    """bool: the requested positions, counted likewise: those of the active block that a decoding
    forward computes logits for. They are the masked positions (then this is the same array) or,
    with a strategy that edits, all positions after the prompt."""

    def __len__(self) -> int:
        return self.first_slot.size


_FLOATS = ("temperature", "top_p", "guidance")
_FLAGS = ("opens", "has_changed", "has_failed_alone")
_TABLES = ("counts_2B", "decoding_counts_3B", "is_masked_BL", "is_asked_BL")
_NUMBERS = tuple(
    field.name for field in fields(Sequences) if field.name not in (*_FLOATS, *_FLAGS, *_TABLES)
)


class Admission(NamedTuple):
    """A request that has got its pages."""

    request: Request
    first_page: int
    first_slot: int
    canvas_len: int
    first_block_start: int
    twin_offset: int


class LiveSequences:
    """Owns the memory of all live sequences.

    A sequence's place in the arrays is its place in the order of admission, so it changes when an
    earlier sequence is retired. What is kept for each position of a canvas is addressed by slot,
    like K and V, and stays where it is.
    """

    def __init__(
        self, *, num_slots: int, block_length: int, edits: bool, tracks_uncached: bool
    ) -> None:
        self.requests: list[Request] = []
        self.num_guided = 0
        """Sequences with guidance."""
        # A block may be shorter than block_length, so `block_length` slots from its start may reach
        # beyond the last one.
        self.token_S = np.full(num_slots + block_length, NO_TOKEN, dtype=np.int32)
        self.confidence_S = np.zeros(num_slots + block_length, dtype=np.float32)
        self.is_uncached_S = np.zeros(num_slots, dtype=np.bool_) if tracks_uncached else None
        """Positions that were committed or edited after their K and V were last computed. Only kept
        for policies that leave out cached positions."""
        self._numbers: np.ndarray = np.zeros((len(_NUMBERS), 0), dtype=np.int64)
        self._floats: np.ndarray = np.zeros((len(_FLOATS), 0))
        self._flags: np.ndarray = np.zeros((len(_FLAGS), 0), dtype=np.bool_)
        self._is_masked_BL = np.zeros((0, block_length), dtype=np.bool_)
        self._is_asked_BL = self._is_masked_BL.copy() if edits else self._is_masked_BL
        self.arrays = self._views()

    def __len__(self) -> int:
        return len(self.requests)

    def admit(self, admissions: Iterable[Admission]) -> np.ndarray:
        """Add sequences, whose fields are all 0 except those that follow from the request. Returns
        their places."""
        first = len(self)
        admissions = list(admissions)
        self.requests += [admission.request for admission in admissions]
        self._grow(len(self))
        self._numbers[:, first : len(self)] = 0
        self._flags[:, first : len(self)] = False
        self.arrays = s = self._views()
        for i, admission in enumerate(admissions, first):
            request, first_page, first_slot, canvas_len, start, twin_offset = admission
            s.first_page[i], s.first_slot[i] = first_page, first_slot
            s.canvas_len[i], s.first_block_start[i] = canvas_len, start
            s.num_prompt_tokens[i] = len(request.prompt_ids)
            s.end_position[i] = len(request.prompt_ids) + request.max_new_tokens
            s.seed[i], s.temperature[i] = request.seed, request.temperature
            s.view[i], s.top_k[i], s.top_p[i] = filters_of(request)
            s.twin_offset[i], s.guidance[i] = twin_offset, request.guidance
            self.num_guided += twin_offset > 0
            self.token_S[first_slot : first_slot + canvas_len] = NO_TOKEN
            if self.is_uncached_S is not None:
                self.is_uncached_S[first_slot : first_slot + canvas_len] = False
        s.eos_position[first:] = s.end_position[first:]
        return np.arange(first, len(self))

    def retire(self, places: np.ndarray) -> None:
        """Remove the sequences at these places."""
        is_kept = np.ones(len(self), dtype=np.bool_)
        is_kept[places] = False
        num_live, num_kept = len(self), int(np.count_nonzero(is_kept))
        if self.num_guided:
            self.num_guided -= int(np.count_nonzero(self.arrays.twin_offset[places]))
        for memory in (self._numbers, self._floats, self._flags):
            memory[:, :num_kept] = memory[:, :num_live][:, is_kept]
        for rows in {id(x): x for x in (self._is_masked_BL, self._is_asked_BL)}.values():
            rows[:num_kept] = rows[:num_live][is_kept]
        for place in sorted(places.tolist(), reverse=True):
            del self.requests[place]
        self.arrays = self._views()

    def _grow(self, num_live: int) -> None:
        """Make room for so many sequences."""
        room = self._numbers.shape[1]
        if num_live <= room:
            return
        missing = max(room, num_live - room)
        self._numbers, self._floats, self._flags = (
            np.pad(memory, ((0, 0), (0, missing)))
            for memory in (self._numbers, self._floats, self._flags)
        )
        is_same = self._is_asked_BL is self._is_masked_BL
        self._is_masked_BL = np.pad(self._is_masked_BL, ((0, missing), (0, 0)))
        self._is_asked_BL = (
            self._is_masked_BL if is_same else np.pad(self._is_asked_BL, ((0, missing), (0, 0)))
        )

    def _views(self) -> Sequences:
        end = len(self)
        views = zip(
            (*_NUMBERS, *_FLOATS, *_FLAGS),
            (*self._numbers, *self._floats, *self._flags),
            strict=True,
        )
        first = _NUMBERS.index("num_iterations")
        last = _NUMBERS.index("num_iterations_since_opening")
        assert last == first + 4, "the fields of both tables of counts stand in a row"
        is_masked_BL = self._is_masked_BL[:end]
        is_same = self._is_asked_BL is self._is_masked_BL
        return Sequences(
            **{name: memory[:end] for name, memory in views},
            counts_2B=self._numbers[first : first + 2, :end],
            decoding_counts_3B=self._numbers[first + 2 : last + 1, :end],
            is_masked_BL=is_masked_BL,
            is_asked_BL=is_masked_BL if is_same else self._is_asked_BL[:end],
        )
