"""Packs the spans of many sequences into the tensors of one forward, without padding.

Shape letters, here and in engine/runner.py: Q query tokens of all sequences, in plan order;
M requested positions (those whose logits are computed) of all active blocks, ordered by sequence,
then by position; B sequences; R runs (query tokens of one sequence that attend to the same
context); T pages of the longest context.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.cache.base import Span
from engine.decoding.positions import AskedPositions
from engine.kernels.reference import PagedLayout
from engine.model.config import ModelConfig
from engine.request import Positions, Sequence

Plan = list[tuple[Sequence, Span]]
"""The sequences that take part in a forward, each with its span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The packed inputs of one forward; all tensors are on the device."""

    positions_Q: Tensor
    """Canvas position of each query token."""
    slots_Q: Tensor
    layout: PagedLayout
    index_M: Tensor
    """Index in Q of each requested position."""
    logit_index_M: Tensor
    """Index in Q of the query token that a requested position's logits are computed from: the
    position itself or, in a model with shifted logits, the position before it."""
    slots_M: Tensor
    asked: AskedPositions
    """The requested positions. What only the device knows (tokens, masks, state) is filled in by
    engine/decide.py."""


def pack(plan: Plan, page_size: int, model: ModelConfig, device: torch.device) -> Batch:
    """Build the batch of a plan. All arrays go to the device in one copy of one int64 buffer."""
    spans = [_array(span.positions) for _, span in plan]
    requested = [_array(s.asked_positions if span.is_decoding else []) for s, span in plan]
    query_starts = np.concatenate(([0], np.cumsum([positions.size for positions in spans])))
    first_slots = np.array([sequence.first_slot for sequence, _ in plan])
    index_M = _indices_in_q(query_starts, spans, requested)
    sources = [positions - 1 for positions in requested]
    logit_index_M = _indices_in_q(query_starts, spans, sources) if model.is_shifted else index_M
    positions_Q, position_M = np.concatenate(spans), np.concatenate(requested)
    counts = [positions.size for positions in requested]
    runs = list(_runs(plan, spans, query_starts, model.block_length))
    arrays = {
        "positions_Q": positions_Q,
        "slots_Q": positions_Q + np.repeat(first_slots, np.diff(query_starts)),
        "index_M": index_M,
        "logit_index_M": logit_index_M,
        "slots_M": position_M + np.repeat(first_slots, counts),
        "position_M": position_M,
        "sequence_M": np.repeat(np.arange(len(plan)), counts),
        **_per_sequence([sequence for sequence, _ in plan]),
        "query_starts": np.array([start for start, *_ in runs] + [positions_Q.size]),
        "context_lens_R": np.array([context_len for *_, context_len in runs]),
        "page_table_RT": _page_table(runs, page_size).ravel(),
    }
    sent = _to_device(arrays, device)
    asked = AskedPositions(
        sequence_M=sent["sequence_M"],
        position_M=sent["position_M"],
        num_masked_at_block_start_B=sent["num_masked_at_block_start_B"],
        num_iterations_in_block_B=sent["num_iterations_in_block_B"],
        num_iterations_B=sent["num_iterations_B"],
        seed_B=sent["seed_B"],
        temperature_B=sent["temperature_B"].view(torch.float64).float(),
        any_sampled=any(sequence.request.temperature > 0 for sequence, _ in plan),
        longest=max(counts),
    )
    layout = PagedLayout(
        query_starts=sent["query_starts"].int(),
        page_table_RT=sent["page_table_RT"].view(len(runs), -1).int(),
        context_lens_R=sent["context_lens_R"].int(),
        host_runs=runs,
    )
    fields = ("positions_Q", "slots_Q", "index_M", "logit_index_M", "slots_M")
    return Batch(**{name: sent[name] for name in fields}, layout=layout, asked=asked)


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


def _per_sequence(sequences: list[Sequence]) -> dict[str, np.ndarray]:
    """The per-sequence values that a decoding strategy may use."""
    return {
        "num_masked_at_block_start_B": np.array([s.num_masked_at_block_start for s in sequences]),
        "num_iterations_in_block_B": np.array([s.num_iterations_in_block for s in sequences]),
        "num_iterations_B": np.array([s.num_decoding_iterations for s in sequences]),
        "seed_B": np.array([s.request.seed for s in sequences], dtype=np.int64),
        "temperature_B": _bits_of([s.request.temperature for s in sequences]),
    }


def _bits_of(values: list[float]) -> np.ndarray:
    """The bits of float64 values as int64, so that they fit into the buffer of integers."""
    return np.array(values, dtype=np.float64).view(np.int64)


def _page_table(runs: list[tuple[int, int, int, int]], page_size: int) -> np.ndarray:
    """int64 [R, T]: the pages of each run's context, which are consecutive, then zeros."""
    num_pages_R = np.array([-(-context_len // page_size) for *_, context_len in runs])
    first_page_R = np.array([first_slot // page_size for *_, first_slot, _ in runs])
    offsets_T = np.arange(num_pages_R.max())
    inside_RT = offsets_T < num_pages_R[:, None]
    return np.where(inside_RT, first_page_R[:, None] + offsets_T, 0)


def _to_device(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    buffer = torch.from_numpy(np.concatenate(list(arrays.values())).astype(np.int64, copy=False))
    if device.type == "cuda":
        buffer = buffer.pin_memory().to(device, non_blocking=True)
    pieces = torch.split(buffer, [array.size for array in arrays.values()])
    return dict(zip(arrays, pieces, strict=True))
