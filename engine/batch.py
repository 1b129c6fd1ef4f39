"""Packs the spans of many sequences into the arrays of one forward, without padding.

The arrays are on the host; engine/device_batch.py sends them to the device.

Shape letters, here and in engine/runner.py: Q query tokens of all sequences, in plan order, then
those of the twins; M requested positions (those whose logits are computed) of all active blocks,
ordered by sequence, then by position; G those of sequences with guidance, which are the last of M;
X softened positions behind the active blocks; B sequences; R runs (query tokens of one canvas that
attend to the same context).
"""

from typing import NamedTuple

import numpy as np

from engine.guidance import HostTwins
from engine.model.config import ModelConfig
from engine.plans import Plan, QueryTokens, runs_of
from engine.sampling import HostFilters
from engine.sequences import Sequences


class Softened(NamedTuple):
    """The softened positions: the masked ones behind the active blocks in the spans of a forward,
    if soft iteration has the scope of the canvas. int64, ordered by sequence, then by position."""

    index_X: np.ndarray
    """Index in Q."""
    logit_index_X: np.ndarray
    """Index in Q of the query token that its logits are computed from."""
    slots_X: np.ndarray
    sequence_X: np.ndarray
    """Ascending: index 0 .. B-1 of its sequence."""


class HostBatch(NamedTuple):
    """The packed inputs of one forward on the host: int64 unless said otherwise. Some are views of
    what the host keeps of the sequences, so they are valid until the forward's commits are
    recorded."""

    positions_Q: np.ndarray
    """Canvas position of each query token."""
    slots_Q: np.ndarray
    index_M: np.ndarray
    """Index in Q of each requested position; of the query token that its logits are computed from,
    where the forward does not compute the position itself (engine/shifted_spans.py)."""
    logit_index_M: np.ndarray
    """Index in Q of the query token that a requested position's logits are computed from: the
    position itself or, in a model with shifted logits, the position before it."""
    slots_M: np.ndarray
    position_M: np.ndarray
    """Canvas position of each requested position."""
    offset_M: np.ndarray
    """The same within the active block."""
    sequence_M: np.ndarray
    """Ascending: index 0 .. B-1 of each requested position's sequence."""
    num_masked_at_block_start_B: np.ndarray
    num_iterations_in_block_B: np.ndarray
    """Decoding forwards in the active block before this one, without one that opened it alone."""
    num_iterations_B: np.ndarray
    """Decoding forwards of the sequence before this one."""
    seed_B: np.ndarray
    temperature_B: np.ndarray
    """float64. 0 in a forward that opens a block of a block-causal model with shifted logits alone:
    Fast_dLLM_v2's authors take the likeliest word there, whatever the temperature."""
    filters: HostFilters | None
    """None where no sequence's logits are seen through top_k, top_p or its temperature."""
    query_starts: np.ndarray
    """[R + 1]: run r has the query tokens query_starts[r] .. query_starts[r + 1] - 1."""
    first_slot_R: np.ndarray
    """Slot of canvas position 0 of each run's canvas; its pages are contiguous."""
    context_lens_R: np.ndarray
    softened: Softened | None = None
    """None if there are none."""
    twins: HostTwins | None = None
    """None: no requested position has guidance."""

    @property
    def any_sampled(self) -> bool:
        return bool(np.count_nonzero(self.temperature_B))


class _Runs(NamedTuple):
    """Fields of HostBatch."""

    query_starts: np.ndarray
    first_slot_R: np.ndarray
    context_lens_R: np.ndarray


def pack(plan: Plan, model: ModelConfig, softens_canvas: bool = False) -> HostBatch:
    """The batch of a plan; with its softened positions if soft iteration `softens_canvas`."""
    s, places, asked = plan.s, plan.places, plan.asked
    position_M, temperature_B = asked.position_M, s.temperature[places]
    if plan.opens_B is not None and model.is_shifted and model.block_length is not None:
        position_M = position_M - plan.opens_B[asked.sequence_M]
        temperature_B = np.where(plan.opens_B, 0.0, temperature_B)
    starts = np.zeros(len(plan) + 1, dtype=np.int64)
    np.add.accumulate(plan.span_lens_B, out=starts[1:])
    first_slot_B = s.first_slot[places]
    if plan.query_tokens is None:
        # What a canvas position of each sequence has to be raised by to be its index in Q.
        raise_B = starts[:-1] - plan.start_B
        arange_Q = np.arange(starts[-1])
        positions_Q = arange_Q - raise_B.repeat(plan.span_lens_B)
        slots_Q = positions_Q + first_slot_B.repeat(plan.span_lens_B)
        index_M = position_M + raise_B[asked.sequence_M]
        logit_index_M = index_M
        if model.is_shifted:
            logit_index_M = asked.position_M + raise_B[asked.sequence_M] - 1
    else:
        positions_Q, slots_Q = plan.query_tokens.position_Q, plan.query_tokens.slots_Q
        index_M = _index_in_q(plan.query_tokens, asked.sequence_M, position_M)
        logit_index_M = index_M
        if model.is_shifted:
            logit_index_M = _index_in_q(plan.query_tokens, asked.sequence_M, asked.position_M - 1)
    runs = _runs(plan, starts, first_slot_B, model.block_length)
    host = HostBatch(
        positions_Q=positions_Q,
        slots_Q=slots_Q,
        index_M=index_M,
        logit_index_M=logit_index_M,
        slots_M=asked.slots_M,
        position_M=asked.position_M,
        offset_M=asked.offset_M,
        sequence_M=asked.sequence_M,
        num_masked_at_block_start_B=s.num_masked_at_block_start[places],
        num_iterations_in_block_B=s.num_iterations_since_opening[places],
        num_iterations_B=s.num_decoding_iterations[places],
        seed_B=s.seed[places],
        temperature_B=temperature_B,
        filters=_filters(s, places),
        query_starts=runs.query_starts,
        first_slot_R=runs.first_slot_R,
        context_lens_R=runs.context_lens_R,
        softened=_softened(plan, starts, first_slot_B, model) if softens_canvas else None,
    )
    return host if plan.num_guided == 0 else _with_twins(host, plan, starts)


def _with_twins(host: HostBatch, plan: Plan, starts: np.ndarray) -> HostBatch:
    """The batch, with the query tokens and runs of the twins behind those of the sequences; `host`
    lacks them. The sequences that have twins are the last, from query token starts[-1 - num_guided]
    on."""
    first_sequence = len(plan) - plan.num_guided
    first = int(starts[first_sequence])
    # From a query token of a sequence to that of its twin.
    step = int(starts[-1]) - first
    offset_B = plan.s.twin_offset[plan.places]
    offset_Q = offset_B[first_sequence:].repeat(plan.span_lens_B[first_sequence:])
    first_run = int(np.searchsorted(host.query_starts, first))
    starts_R = host.query_starts[first_run:]
    sequence_R = np.searchsorted(starts, starts_R[:-1], side="right") - 1
    return host._replace(
        positions_Q=np.concatenate((host.positions_Q, host.positions_Q[first:])),
        slots_Q=np.concatenate((host.slots_Q, host.slots_Q[first:] + offset_Q)),
        query_starts=np.concatenate((host.query_starts, starts_R[1:] + step)),
        first_slot_R=np.concatenate(
            (host.first_slot_R, host.first_slot_R[first_run:] + offset_B[sequence_R])
        ),
        context_lens_R=np.concatenate((host.context_lens_R, host.context_lens_R[first_run:])),
        twins=_twins(host, plan, first_sequence, step),
    )


def _twins(host: HostBatch, plan: Plan, first_sequence: int, step: int) -> HostTwins | None:
    first = int(np.searchsorted(host.sequence_M, first_sequence))
    sequence_G = host.sequence_M[first:]
    if sequence_G.size == 0:
        return None
    return HostTwins(
        index_G=host.index_M[first:] + step,
        logit_index_G=host.logit_index_M[first:] + step,
        slots_G=host.slots_M[first:] + plan.s.twin_offset[plan.places][sequence_G],
        weight_G=plan.s.guidance[plan.places][sequence_G] + 1,
    )


def _softened(
    plan: Plan, starts: np.ndarray, first_slot_B: np.ndarray, model: ModelConfig
) -> Softened | None:
    """All positions of a span behind the active block are masked."""
    block_end_B = plan.s.block_end[plan.places]
    sequence_X, position_X = runs_of(block_end_B, np.maximum(plan.end_B - block_end_B, 0))
    if not position_X.size:
        return None
    source_X = position_X - 1 if model.is_shifted else position_X
    if plan.query_tokens is None:
        raise_X = (starts[:-1] - plan.start_B)[sequence_X]
        index_X, logit_index_X = position_X + raise_X, source_X + raise_X
    else:
        index_X, logit_index_X = (
            _index_in_q(plan.query_tokens, sequence_X, of_X) for of_X in (position_X, source_X)
        )
    return Softened(index_X, logit_index_X, position_X + first_slot_B[sequence_X], sequence_X)


def _filters(s: Sequences, places: np.ndarray | slice) -> HostFilters | None:
    view_B = s.view[places]
    if not np.count_nonzero(view_B):
        return None
    return HostFilters(view_B, s.top_k[places], s.top_p[places])


def _index_in_q(tokens: QueryTokens, sequence_M: np.ndarray, position_M: np.ndarray) -> np.ndarray:
    """Indices in Q of canvas positions that are among the query tokens."""
    key_Q = (tokens.sequence_Q << 32) + tokens.position_Q
    return np.searchsorted(key_Q, (sequence_M << 32) + position_M)


def _runs(
    plan: Plan, starts: np.ndarray, first_slot_B: np.ndarray, block_length: int | None
) -> _Runs:
    """One run per sequence or, under block-causal attention, one per attention block in its
    span."""
    if block_length is None:
        return _Runs(starts, first_slot_B, plan.s.canvas_len[plan.places])
    if plan.query_tokens is None:
        return _runs_of_blocks(plan, starts, first_slot_B, block_length)
    return _runs_of_positions(plan.query_tokens, first_slot_B, block_length)


def _runs_of_blocks(
    plan: Plan, starts: np.ndarray, first_slot_B: np.ndarray, block_length: int
) -> _Runs:
    """The runs of spans that leave out nothing."""
    first_B = plan.start_B // block_length
    first_end_B = (first_B + 1) * block_length
    if not np.count_nonzero(plan.end_B > first_end_B):
        return _Runs(starts, first_slot_B, first_end_B)
    num_blocks_B = (plan.end_B - 1) // block_length - first_B + 1
    sequence_R, block_R = runs_of(first_B, num_blocks_B)
    # A run begins where its block does, except for a span that begins within the block.
    before_R = np.maximum(block_R * block_length - plan.start_B[sequence_R], 0)
    starts_R = np.empty(sequence_R.size + 1, dtype=np.int64)
    np.add(starts[sequence_R], before_R, out=starts_R[:-1])
    starts_R[-1] = starts[-1]
    return _Runs(
        starts_R,
        first_slot_B[sequence_R],
        (block_R + 1) * block_length,
    )


def _runs_of_positions(tokens: QueryTokens, first_slot_B: np.ndarray, block_length: int) -> _Runs:
    """The runs of spans that leave out positions."""
    block_Q = tokens.position_Q // block_length
    key_Q = (tokens.sequence_Q << 32) + block_Q
    cuts_R = np.flatnonzero(np.diff(key_Q, prepend=-1))
    return _Runs(
        np.append(cuts_R, key_Q.size),
        first_slot_B[tokens.sequence_Q[cuts_R]],
        (block_Q[cuts_R] + 1) * block_length,
    )
