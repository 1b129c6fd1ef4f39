"""Sends a packed batch to the device: the tensors of one forward.

Shape letters as in engine/batch.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.decoding.positions import AskedPositions
from engine.kernels.reference import PagedLayout
from engine.kernels.tiles import HostTiles, Tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The packed inputs of one forward; all tensors are on the device. The fields mean what they
    mean in HostBatch."""

    positions_Q: Tensor
    slots_Q: Tensor
    layout: PagedLayout
    tiles: tuple[Tiles, ...]
    """How attention divides the runs among its programs; empty for plain torch."""
    num_rows: Tensor | None
    """int32 [1]: the query tokens from this one on are padding; None if there is none."""
    index_M: Tensor
    logit_index_M: Tensor
    slots_M: Tensor
    asked: AskedPositions
    """The requested positions. What only the device knows (tokens, masks, state) is filled in by
    engine/decide.py."""


def send(host: HostBatch, device: torch.device, tiles: Sequence[HostTiles] = ()) -> Batch:
    """The batch on the device. All arrays go there in one copy of one int64 buffer."""
    arrays = _arrays(host)
    for i, each in enumerate(tiles):
        arrays |= {f"run_A{i}": each.run_A, f"first_A{i}": each.first_A}
    sent = _to_device(arrays, device)
    asked = AskedPositions(
        sequence_M=sent["sequence_M"],
        position_M=sent["position_M"],
        num_masked_at_block_start_B=sent["num_masked_at_block_start_B"],
        num_iterations_in_block_B=sent["num_iterations_in_block_B"],
        num_iterations_B=sent["num_iterations_B"],
        seed_B=sent["seed_B"],
        temperature_B=sent["temperature_B"].view(torch.float64).float(),
        any_sampled=host.any_sampled,
        longest=host.longest,
    )
    starts, slots, lens = (
        x.tolist() for x in (host.query_starts, host.first_slot_R, host.context_lens_R)
    )
    layout = PagedLayout(
        query_starts=sent["query_starts"].int(),
        first_slot_R=sent["first_slot_R"].int(),
        context_lens_R=sent["context_lens_R"].int(),
        longest_context=max(lens),
        host_runs=list(zip(starts[:-1], starts[1:], slots, lens, strict=True)),
    )
    return Batch(
        positions_Q=sent["positions_Q"],
        slots_Q=sent["slots_Q"],
        layout=layout,
        tiles=tuple(
            Tiles(tile=each.tile, run_A=sent[f"run_A{i}"].int(), first_A=sent[f"first_A{i}"].int())
            for i, each in enumerate(tiles)
        ),
        num_rows=None,
        index_M=sent["index_M"],
        logit_index_M=sent["logit_index_M"],
        slots_M=sent["slots_M"],
        asked=asked,
    )


def _arrays(host: HostBatch) -> dict[str, np.ndarray]:
    """The arrays that the device needs, all int64: the bits of float64 values stand for them."""
    names = (
        *("positions_Q", "slots_Q", "index_M", "logit_index_M", "slots_M", "position_M"),
        *("sequence_M", "num_masked_at_block_start_B", "num_iterations_in_block_B"),
        *("num_iterations_B", "seed_B", "query_starts", "first_slot_R", "context_lens_R"),
    )
    arrays = {name: getattr(host, name) for name in names}
    return arrays | {"temperature_B": host.temperature_B.view(np.int64)}


def _to_device(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    buffer = torch.from_numpy(np.concatenate(list(arrays.values())).astype(np.int64, copy=False))
    if device.type == "cuda":
        buffer = buffer.pin_memory().to(device, non_blocking=True)
    pieces = torch.split(buffer, [array.size for array in arrays.values()])
    return dict(zip(arrays, pieces, strict=True))
