"""Where the arrays of a forward stand in the one buffer that goes to the device.

Shape letters as in engine/batch.py; also A tiles of attention.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.batch import HostBatch, Softened
from engine.guidance import WIDE_FIELDS_G
from engine.kernels.tiles import AttentionTile, HostTiles
from engine.sampling import Views

ALIGNMENT = 16
"""Every tensor begins at a multiple of this many bytes. Triton compiles a kernel again for
pointers that do not."""


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


class Places(NamedTuple):
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
FIELDS_X = Softened._fields
_FIELDS_OF_FILTERS = ("view_B", "top_k_B", "top_p_B")
_FIELDS_R = ("first_slot_R", "context_lens_R")
_sent_fields = attrgetter(*_FIELDS_Q, *_FIELDS_M, *_FIELDS_B, "query_starts", *_FIELDS_R)

_Group = tuple[tuple[str, ...], int]
"""Arrays of the same size."""


@lru_cache(maxsize=256)
def places_of(shape: BatchShape) -> Places:
    """The arrays in the order of `arrays_of`. Mostly computed anew, because the number of requested
    positions differs from forward to forward."""
    Q, M, B, R = shape[:4]
    wide: list[_Group] = [(_FIELDS_Q, Q), (_FIELDS_M, M), (_FIELDS_B, B)]
    if shape.num_softened:
        wide.insert(0, (FIELDS_X, shape.num_softened))
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
    return Places(of, start // 2)


def arrays_of(host: HostBatch, tiles: Sequence[HostTiles]) -> list[np.ndarray]:
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


def rooms_of(buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole buffer in int32 and in int64."""
    return buffer.view(np.int32), buffer


def views_of(buffer: Tensor, places: Places) -> dict[str, Tensor]:
    """The tensors of a buffer by name."""
    whole = (buffer.view(torch.int32), buffer)
    return {name: whole[is_wide][a:b] for name, (is_wide, a, b) in places.of.items()}
