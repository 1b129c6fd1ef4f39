"""Sends a packed batch to the device: the tensors of one forward.

All arrays go there in one asynchronous copy of one buffer. The tensors of a forward have the sizes
of its plan or, for a graph, a fixed BatchShape, to which the plan is padded:

    query tokens         of no run; position 0, at the scratch slot
    softened positions   the same
    requested positions  of the first sequence behind the last one; at the scratch slot, computed
                         from the hidden state of query token 0
    sequences            in their first iteration, greedy, with no masked position
    runs                 of no query token
    tiles of attention   of no run

The scratch slot is the first one of a page that belongs to no sequence. A padded position reads
zeros as its state, and whatever it commits is never read.

Shape letters as in engine/batch.py; also A tiles of attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.decoding.positions import AskedPositions
from engine.guidance import WIDE_FIELDS_G, Twins
from engine.kernels.reference import PagedLayout, Run
from engine.kernels.tiles import AttentionTile, HostTiles, Tiles
from engine.sampling import Filters, Views
from engine.staging import Staging

ALIGNMENT = 16
"""Every tensor begins at a multiple of this many bytes. Triton compiles a kernel again for
pointers that do not."""


class Softened(NamedTuple):
    """As engine.batch.Softened, on the device."""

    index_X: Tensor
    logit_index_X: Tensor
    slots_X: Tensor
    sequence_X: Tensor


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
    softened: Softened | None
    twins: Twins | None = None
    """None: no requested position has guidance."""


class BatchShape(NamedTuple):
    """The sizes of a forward's tensors, and all else that its launches depend on."""

    num_query_tokens: int
    num_asked: int
    num_sequences: int
    num_runs: int
    tiles: tuple[tuple[AttentionTile, int], ...]
    """The configuration of each list of attention's tiles, and its length."""
    any_sampled: bool
    num_softened: int = 0
    views: Views | None = None
    """None where no sequence's logits are seen through a filter or its temperature."""
    num_guided: int = 0
    """Requested positions with guidance. A graph has none: which positions they are would depend
    on how many there are."""

    @staticmethod
    def of(host: HostBatch, tiles: Sequence[HostTiles]) -> "BatchShape":
        """The sizes of the plan itself."""
        return BatchShape(
            host.positions_Q.size,
            host.index_M.size,
            host.seed_B.size,
            host.first_slot_R.size,
            tuple((each.tile, each.run_A.size) for each in tiles),
            host.any_sampled,
            0 if host.softened is None else host.softened.slots_X.size,
            None if host.filters is None else host.filters.views,
            0 if host.twins is None else host.twins.index_G.size,
        )


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
        places = _places(shape)
        buffer = self._staging.room(places.size)
        rooms = _rooms(buffer)
        for (is_wide, start, end), array in zip(
            places.of.values(), _arrays(host, tiles), strict=True
        ):
            rooms[is_wide][start:end] = array
        return self._batch(self._staging.send(buffer), shape, host)

    def fixed(self, shape: BatchShape) -> FixedBatch:
        """Tensors of a fixed shape, filled with nothing but padding."""
        buffer = torch.empty(_places(shape).size, dtype=torch.int64, device=self._device)
        fixed = FixedBatch(shape, buffer, self._batch(buffer, shape, None))
        self._staging.send(self._padded(shape, None, ()), buffer)
        return fixed

    def fill(self, fixed: FixedBatch, host: HostBatch, tiles: Sequence[HostTiles]) -> None:
        """Replace the contents of a fixed batch by a plan, padded to its shape."""
        self._staging.send(self._padded(fixed.shape, host, tiles), fixed.buffer)

    def _padded(
        self, shape: BatchShape, host: HostBatch | None, tiles: Sequence[HostTiles]
    ) -> Tensor:
        """The buffer on the host: the plan, or nothing, padded to the shape."""
        places, padding = _places(shape), self._padding(host)
        nothing = [np.empty(0)] * len(places.of)
        arrays = nothing if host is None else _arrays(host, tiles)
        buffer = self._staging.room(places.size)
        rooms = _rooms(buffer)
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
        sent = _views(buffer, _places(shape))
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
        longest = self._longest_context
        if host is not None:
            longest = int(np.maximum.reduce(host.context_lens_R))
        layout = PagedLayout(
            query_starts=sent["query_starts"],
            first_slot_R=sent["first_slot_R"],
            context_lens_R=sent["context_lens_R"],
            longest_context=longest,
            host_runs=None if host is None else _runs(host),
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
            softened=Softened(*(sent[name] for name in _FIELDS_X)) if shape.num_softened else None,
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


class _Places(NamedTuple):
    """Where the arrays stand in the buffer."""

    of: dict[str, tuple[bool, int, int]]
    """Name -> whether it is int64, else of 32 bits; its start and end, counted in elements."""
    size: int
    """Of the buffer, in int64."""


_FIELDS_Q = ("positions_Q", "slots_Q")
_FIELDS_M = ("index_M", "logit_index_M", "slots_M", "position_M", "offset_M", "sequence_M")
_FIELDS_B = (
    *("num_masked_at_block_start_B", "num_iterations_in_block_B", "num_iterations_B", "seed_B"),
)
_FIELDS_X = Softened._fields
_FIELDS_OF_FILTERS = ("view_B", "top_k_B", "top_p_B")
_FIELDS_R = ("first_slot_R", "context_lens_R")
_sent_fields = attrgetter(*_FIELDS_Q, *_FIELDS_M, *_FIELDS_B, "query_starts", *_FIELDS_R)

_Group = tuple[tuple[str, ...], int]
"""Arrays of the same size."""


@lru_cache(maxsize=256)
def _places(shape: BatchShape) -> _Places:
    """The arrays in the order of `_arrays`. Mostly computed anew, because the number of requested
    positions differs from forward to forward."""
    Q, M, B, R = shape[:4]
    wide: list[_Group] = [(_FIELDS_Q, Q), (_FIELDS_M, M), (_FIELDS_B, B)]
    if shape.num_softened:
        wide.insert(0, (_FIELDS_X, shape.num_softened))
    narrow: list[_Group] = [(("query_starts",), R + 1), (_FIELDS_R, R)]
    narrow += [(("temperature_B",), B), (("num_rows",), 1)]
    if shape.views is not None:
        narrow.append((_FIELDS_OF_FILTERS, B))
    for i, (_, length) in enumerate(shape.tiles):
        narrow.append(((f"run_A{i}", f"first_A{i}"), length))
    if shape.num_guided:
        wide.append((WIDE_FIELDS_G, shape.num_guided))
        narrow.append((("weight_G",), shape.num_guided))
    of: dict[str, tuple[bool, int, int]] = {}
    start = 0
    for names, size in wide:
        step = size + -size % (ALIGNMENT // 8)
        for name in names:
            of[name] = (True, start, start + size)
            start += step
    start *= 2
    for names, size in narrow:
        step = size + -size % (ALIGNMENT // 4)
        for name in names:
            of[name] = (False, start, start + size)
            start += step
    return _Places(of, start // 2)


def _arrays(host: HostBatch, tiles: Sequence[HostTiles]) -> list[np.ndarray]:
    """What the device needs. The bits of float32 numbers stand for them."""
    temperature_B = host.temperature_B.astype(np.float32).view(np.int32)
    num_rows = np.array([host.positions_Q.size])
    arrays = [*(host.softened or ()), *_sent_fields(host), temperature_B, num_rows]
    if (its := host.filters) is not None:
        arrays += (its.view_B, its.top_k_B, its.top_p_B.astype(np.float32).view(np.int32))
    for each in tiles:
        arrays += (each.run_A, each.first_A)
    if host.twins is not None:
        # The places of all arrays of 64 bits come first.
        num_wide = len((*(host.softened or ()), *_FIELDS_Q, *_FIELDS_M, *_FIELDS_B))
        *wide, weight_G = host.twins
        arrays[num_wide:num_wide] = wide
        arrays.append(weight_G.astype(np.float32).view(np.int32))
    return arrays


def _rooms(buffer: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The whole buffer in int32 and in int64."""
    wide = buffer.numpy()
    return wide.view(np.int32), wide


def _views(buffer: Tensor, places: _Places) -> dict[str, Tensor]:
    """The tensors of a buffer by name."""
    whole = (buffer.view(torch.int32), buffer)
    return {name: whole[is_wide][a:b] for name, (is_wide, a, b) in places.of.items()}


def _runs(host: HostBatch) -> list[Run]:
    starts, slots, lens = (
        x.tolist() for x in (host.query_starts, host.first_slot_R, host.context_lens_R)
    )
    return list(zip(starts[:-1], starts[1:], slots, lens, strict=True))
