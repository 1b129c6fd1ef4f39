"""Packs the spans of sequences one by one, in plain Python and small arrays."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from engine.batch import HostBatch, Softened
from engine.guidance import HostTwins
from engine.model.config import ModelConfig
from engine.sampling import HostFilters, View, filters_of
from tests.engine.plain.iterations import Plan
from tests.engine.plain.sequence import Positions, Sequence


def pack(plan: Plan, model: ModelConfig, softens_canvas: bool = False) -> HostBatch:
    """The batch of a plan: its sequences and, behind them, their twins."""
    twins = [(as_twin(sequence), span) for sequence, span in plan if sequence.num_canvases == 2]
    batch = _pack(plan, model, softens_canvas)
    if not twins:
        return batch
    both, twin = (_pack(part, model, softens_canvas=False) for part in ([*plan, *twins], twins))
    step = batch.positions_Q.size
    batch = batch._replace(
        positions_Q=both.positions_Q,
        slots_Q=both.slots_Q,
        query_starts=both.query_starts,
        first_slot_R=both.first_slot_R,
        context_lens_R=both.context_lens_R,
    )
    if not twin.index_M.size:
        return batch
    weights = [sequence.request.guidance + 1 for sequence, _ in twins]
    return batch._replace(
        twins=HostTwins(
            index_G=twin.index_M + step,
            logit_index_G=twin.logit_index_M + step,
            slots_G=twin.slots_M,
            weight_G=np.array(weights, dtype=np.float64)[twin.sequence_M],
        ),
    )


def as_twin(sequence: Sequence) -> Sequence:
    return replace(sequence, first_slot=sequence.first_slot + sequence.twin_offset)


def _pack(plan: Plan, model: ModelConfig, softens_canvas: bool) -> HostBatch:
    """The batch of as many canvases."""
    spans = [_array(span.positions) for _, span in plan]
    requested = [_array(s.requested_positions if span.is_decoding else []) for s, span in plan]
    query_starts = np.concatenate(([0], np.cumsum([positions.size for positions in spans])))
    first_slots = np.array([sequence.first_slot for sequence, _ in plan])
    sources = [positions - model.is_shifted for positions in requested]
    logit_index_M = _indices_in_q(query_starts, spans, sources)
    leaves_out = [s.opens and _is_opened_from_before(model) for s, _ in plan]
    computed = [
        source if is_left_out else positions
        for positions, source, is_left_out in zip(requested, sources, leaves_out, strict=True)
    ]
    index_M = _indices_in_q(query_starts, spans, computed)
    positions_Q, position_M = np.concatenate(spans), np.concatenate(requested)
    counts = [positions.size for positions in requested]
    runs = list(_runs(plan, spans, query_starts, model.block_length))
    sequences = [sequence for sequence, _ in plan]
    return HostBatch(
        positions_Q=positions_Q,
        slots_Q=positions_Q + np.repeat(first_slots, np.diff(query_starts)),
        index_M=index_M,
        logit_index_M=logit_index_M,
        slots_M=position_M + np.repeat(first_slots, counts),
        position_M=position_M,
        offset_M=position_M - np.repeat([s.block_start for s in sequences], counts),
        sequence_M=np.repeat(np.arange(len(plan)), counts),
        num_masked_at_block_start_B=np.array([s.num_masked_at_block_start for s in sequences]),
        num_iterations_in_block_B=np.array([s.num_iterations_since_opening for s in sequences]),
        num_iterations_B=np.array([s.num_decoding_iterations for s in sequences]),
        seed_B=np.array([s.request.seed for s in sequences], dtype=np.int64),
        temperature_B=np.array(
            [
                0.0 if is_left_out else s.request.temperature
                for s, is_left_out in zip(sequences, leaves_out, strict=True)
            ],
            dtype=np.float64,
        ),
        filters=_filters(sequences),
        query_starts=np.array([start for start, *_ in runs] + [positions_Q.size]),
        first_slot_R=np.array([first_slot for *_, first_slot, _ in runs]),
        context_lens_R=np.array([context_len for *_, context_len in runs]),
        softened=_softened(plan, spans, query_starts, model) if softens_canvas else None,
    )


def _softened(
    plan: Plan, spans: list[np.ndarray], query_starts: np.ndarray, model: ModelConfig
) -> Softened | None:
    """The positions of each span that are masked and not in the active block."""
    behind = [
        np.array([p for p in span.tolist() if p >= sequence.block_end], dtype=np.int64)
        for (sequence, _), span in zip(plan, spans, strict=True)
    ]
    counts = [positions.size for positions in behind]
    if not any(counts):
        return None
    sources = [positions - model.is_shifted for positions in behind]
    first_slots = np.array([sequence.first_slot for sequence, _ in plan])
    return Softened(
        _indices_in_q(query_starts, spans, behind),
        _indices_in_q(query_starts, spans, sources),
        np.concatenate(behind) + np.repeat(first_slots, counts),
        np.repeat(np.arange(len(plan)), counts),
    )


def _is_opened_from_before(model: ModelConfig) -> bool:
    """Whether a block's first logits come from the finished block before it, so that a forward that
    opens a block alone leaves the block out."""
    return model.is_shifted and model.block_length is not None


def _filters(sequences: list[Sequence]) -> HostFilters | None:
    its = [filters_of(sequence.request) for sequence in sequences]
    if all(view == View.PLAIN for view, _, _ in its):
        return None
    return HostFilters(*(np.array(values) for values in zip(*its, strict=True)))


def _array(positions: Positions) -> np.ndarray:
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop)
    return np.array(positions, dtype=np.int64)


def _indices_in_q(
    query_starts: np.ndarray, spans: list[np.ndarray], wanted: list[np.ndarray]
) -> np.ndarray:
    """Indices in Q of the wanted canvas positions of each sequence; its span contains them."""
    indices = [
        start + np.searchsorted(span, positions)
        for start, span, positions in zip(query_starts, spans, wanted, strict=False)
    ]
    return np.concatenate(indices)


def _runs(
    plan: Plan, spans: list[np.ndarray], query_starts: np.ndarray, block_length: int | None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (query start, query end, first slot, context length) of every run: one run per
    sequence or, under block-causal attention, one per attention block in its span."""
    for (sequence, _), positions, start in zip(plan, spans, query_starts, strict=False):
        if block_length is None:
            yield int(start), int(start) + positions.size, sequence.first_slot, sequence.canvas_len
            continue
        blocks = positions // block_length
        cuts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
        for first, end in zip(cuts, [*cuts[1:], positions.size], strict=True):
            context_len = (int(blocks[first]) + 1) * block_length
            yield int(start) + first, int(start) + end, sequence.first_slot, context_len
