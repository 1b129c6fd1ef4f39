"""Sequences and their spans -> the packed tensors of one forward. No padding: Q is the sum of the
spans.

Shape letters, here and in the runner: Q query tokens of all sequences, in plan order; M masked
positions of all active blocks, by sequence and then by position; B sequences; T pages of the
longest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.cache.base import Span
from engine.kernels.reference import PagedLayout
from engine.request import Sequence

Plan = list[tuple[Sequence, Span]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All tensors are int64 and on the device, unless it says otherwise."""

    positions_Q: Tensor
    slots_Q: Tensor
    layout: PagedLayout
    logit_index_M: Tensor
    """Where in Q each masked position is."""
    slots_M: Tensor
    position_M: Tensor
    sequence_M: Tensor
    num_masked_at_block_start_B: Tensor
    num_iterations_in_block_B: Tensor
    num_iterations_B: Tensor
    seed_B: Tensor
    temperature_B: Tensor
    """float32."""
    any_sampled: bool


def pack(plan: Plan, page_size: int, device: torch.device) -> Batch:
    """The batch of a plan. Everything travels to the device as one int64 buffer."""
    lengths = np.array([span.end - span.start for _, span in plan])
    query_starts = np.concatenate(([0], lengths.cumsum()))
    per_sequence = np.array([_facts(sequence) for sequence, _ in plan], dtype=np.int64).T
    first_slot_B = per_sequence[0]
    positions_Q = np.concatenate([np.arange(span.start, span.end) for _, span in plan])
    num_masked_B = [len(sequence.masked_positions) for sequence, _ in plan]
    position_M = np.array([p for sequence, _ in plan for p in sequence.masked_positions])
    sequence_M = np.repeat(np.arange(len(plan)), num_masked_B)
    span_start_B = np.array([span.start for _, span in plan])
    arrays = {
        "positions_Q": positions_Q,
        "slots_Q": positions_Q + np.repeat(first_slot_B, lengths),
        "logit_index_M": (query_starts[:-1] - span_start_B)[sequence_M] + position_M,
        "slots_M": first_slot_B[sequence_M] + position_M,
        "position_M": position_M,
        "sequence_M": sequence_M,
        "num_masked_at_block_start_B": per_sequence[1],
        "num_iterations_in_block_B": per_sequence[2],
        "num_iterations_B": per_sequence[3],
        "seed_B": per_sequence[4],
        "temperature_B": _bits_of([s.request.temperature for s, _ in plan]),
        "query_starts": query_starts,
        "context_lens_B": np.array([s.canvas_len for s, _ in plan]),
        "page_table_BT": _page_table(plan, page_size).ravel(),
    }
    on_device = _to_device(arrays, device)
    layout = PagedLayout(
        query_starts=on_device.pop("query_starts").int(),
        page_table_BT=on_device.pop("page_table_BT").view(len(plan), -1).int(),
        context_lens_B=on_device.pop("context_lens_B").int(),
        host_runs=[
            (int(start), int(start + length), s.first_slot, s.canvas_len)
            for start, length, (s, _) in zip(query_starts[:-1], lengths, plan, strict=True)
        ],
    )
    temperature_B = on_device.pop("temperature_B").view(torch.float64).float()
    any_sampled = any(sequence.request.temperature > 0 for sequence, _ in plan)
    return Batch(layout=layout, temperature_B=temperature_B, any_sampled=any_sampled, **on_device)


def _facts(sequence: Sequence) -> tuple[int, ...]:
    return (
        sequence.first_slot,
        sequence.num_masked_at_block_start,
        sequence.num_iterations_in_block,
        sequence.num_iterations,
        sequence.request.seed,
    )


def _bits_of(values: list[float]) -> np.ndarray:
    """float64, to travel with the integers."""
    return np.array(values, dtype=np.float64).view(np.int64)


def _page_table(plan: Plan, page_size: int) -> np.ndarray:
    """[B, T]: a contiguous run's pages are consecutive; past a sequence's last page, zeros."""
    num_pages_B = np.array([-(-sequence.canvas_len // page_size) for sequence, _ in plan])
    first_page_B = np.array([sequence.first_page for sequence, _ in plan])
    offsets_T = np.arange(num_pages_B.max())
    inside_BT = offsets_T < num_pages_B[:, None]
    return np.where(inside_BT, first_page_B[:, None] + offsets_T, 0)


def _to_device(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    buffer = torch.from_numpy(np.concatenate(list(arrays.values())).astype(np.int64, copy=False))
    if device.type == "cuda":
        buffer = buffer.pin_memory().to(device, non_blocking=True)
    pieces = torch.split(buffer, [array.size for array in arrays.values()])
    return dict(zip(arrays, pieces, strict=True))
