"""Sends a packed batch to the device: the tensors of one forward.

All arrays go there in one asynchronous copy of one buffer (engine/batch_buffer.py). The tensors of
a forward have the sizes of its plan or, for a graph, a fixed BatchShape, to which the plan is
padded:

    query tokens         of no run; position 0, at the scratch slot
    softened positions   the same
    requested positions  of the first sequence behind the last one; at the scratch slot, computed
                         from the hidden state of query token 0
    sequences            in their first iteration, greedy, with no masked position
    runs                 of no query token
    tiles of attention   of no run

The scratch slot is the first one of a page that belongs to no sequence. A padded position reads
zeros as its state, and whatever it commits is never read.

Shape letters as in engine/batch.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.batch_buffer import FIELDS_X, BatchShape, arrays_of, places_of, rooms_of, views_of
from engine.decoding.positions import AskedPositions
from engine.guidance import Twins
from engine.kernels.reference import HostRuns, PagedLayout
from engine.kernels.tiles import HostTiles, Tiles
from engine.sampling import Filters, Views
from engine.staging import Staging


class Softened(NamedTuple):
    """As engine.batch.Softened, on the device."""

    index_X: Tensor
    logit_index_X: Tensor
    slots_X: Tensor
    sequence_X: Tensor


class Batch(NamedTuple):
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
    softened: Softened | None
    twins: Twins | None = None
    """None: no requested position has guidance."""


class FixedBatch(NamedTuple):
    """The tensors of a shape, for any number of plans one after the other."""

    shape: BatchShape
    buffer: Tensor
    batch: Batch
    """Views of the buffer."""


class BatchSender:
    """Sends batches to one device."""

    def __init__(
        self,
        device: torch.device,
        *,
        scratch_slot: int,
        block_length: int,
        longest_context: int,
        top_p_first: bool = False,
    ) -> None:
        """`longest_context`: no canvas is longer. `top_p_first`: see Filters."""
        self._device = device
        self._staging = Staging(device)
        self._scratch_slot = scratch_slot
        self._block_length = block_length
        self._longest_context = longest_context
        self._top_p_first = top_p_first

    def send(self, host: HostBatch, tiles: Sequence[HostTiles] = ()) -> Batch:
        """The batch of a plan, without padding."""
        shape = BatchShape.of(host, tiles)
        places = places_of(shape)
        buffer = self._staging.room(places.size)
        rooms = rooms_of(buffer)
        for (is_wide, start, end), array in zip(
            places.of.values(), arrays_of(host, tiles), strict=True
        ):
            rooms[is_wide][start:end] = array
        return self._batch(self._staging.send(buffer), shape, host)

    def fixed(self, shape: BatchShape) -> FixedBatch:
        """Tensors of a fixed shape, filled with nothing but padding."""
        buffer = torch.empty(places_of(shape).size, dtype=torch.int64, device=self._device)
        fixed = FixedBatch(shape, buffer, self._batch(buffer, shape, None))
        self._staging.send(self._padded(shape, None, ()), buffer)
        return fixed

    def fill(self, fixed: FixedBatch, host: HostBatch, tiles: Sequence[HostTiles]) -> None:
        """Replace the contents of a fixed batch by a plan, padded to its shape."""
        self._staging.send(self._padded(fixed.shape, host, tiles), fixed.buffer)

    def _padded(
        self, shape: BatchShape, host: HostBatch | None, tiles: Sequence[HostTiles]
    ) -> np.ndarray:
        """The buffer on the host: the plan, or nothing, padded to the shape."""
        places, padding = places_of(shape), self._padding(host)
        nothing = [np.empty(0)] * len(places.of)
        arrays = nothing if host is None else arrays_of(host, tiles)
        buffer = self._staging.room(places.size)
        rooms = rooms_of(buffer)
        for (name, (is_wide, start, end)), array in zip(places.of.items(), arrays, strict=True):
            rooms[is_wide][start : start + array.size] = array
            if array.size < end - start:
                rooms[is_wide][start + array.size : end] = padding.get(name, 0)
        return buffer

    def _padding(self, host: HostBatch | None) -> dict[str, int]:
        """What stands behind the plan's own values, where it is not 0."""
        return {
            "slots_Q": self._scratch_slot,
            **dict.fromkeys(("slots_M", "slots_X"), self._scratch_slot),
            **dict.fromkeys(("sequence_M", "sequence_X"), 0 if host is None else host.seed_B.size),
            "query_starts": 0 if host is None else host.positions_Q.size,
            "first_slot_R": self._scratch_slot,
            **dict.fromkeys(("run_A0", "run_A1"), -1),
        }

    def _batch(self, buffer: Tensor, shape: BatchShape, host: HostBatch | None) -> Batch:
        """The batch in a buffer; without `host`, of a fixed shape, and the host knows no more."""
        sent = views_of(buffer, places_of(shape))
        asked = AskedPositions(
            sequence_M=sent["sequence_M"],
            position_M=sent["position_M"],
            offset_M=sent["offset_M"],
            num_masked_at_block_start_B=sent["num_masked_at_block_start_B"],
            num_iterations_in_block_B=sent["num_iterations_in_block_B"],
            num_iterations_B=sent["num_iterations_B"],
            seed_B=sent["seed_B"],
            temperature_B=sent["temperature_B"].view(torch.float32),
            any_sampled=shape.any_sampled,
            filters=self._filters(sent, shape.views),
            longest=self._block_length,
        )
        host_runs = None
        if host is not None:
            host_runs = HostRuns(host.query_starts, host.first_slot_R, host.context_lens_R)
        layout = PagedLayout(
            query_starts=sent["query_starts"],
            first_slot_R=sent["first_slot_R"],
            context_lens_R=sent["context_lens_R"],
            longest_context=self._longest_context,
            host_runs=host_runs,
        )
        return Batch(
            positions_Q=sent["positions_Q"],
            slots_Q=sent["slots_Q"],
            index_M=sent["index_M"],
            logit_index_M=sent["logit_index_M"],
            slots_M=sent["slots_M"],
            layout=layout,
            tiles=tuple(
                Tiles(tile=tile, run_A=sent[f"run_A{i}"], first_A=sent[f"first_A{i}"])
                for i, (tile, _) in enumerate(shape.tiles)
            ),
            num_rows=sent["num_rows"] if host is None else None,
            asked=asked,
            softened=Softened(*(sent[name] for name in FIELDS_X)) if shape.num_softened else None,
            twins=Twins.of(sent) if shape.num_guided else None,
        )

    def _filters(self, sent: dict[str, Tensor], views: Views | None) -> Filters | None:
        if views is None:
            return None
        return Filters(
            views=views,
            top_p_first=self._top_p_first,
            view_B=sent["view_B"],
            top_k_B=sent["top_k_B"],
            top_p_B=sent["top_p_B"].view(torch.float32),
        )
