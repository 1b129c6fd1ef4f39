"""Which tiles of query tokens attention is divided into: planned on the host, in arrays.

A tile is `rows` rows, that is rows / group query tokens of one run with all query heads of one
key/value head, so that grouped heads read K and V once. A run's tile follows from the run's own
length, never from its neighbours.

Imports no triton. Shape letters: R runs (R1 = R + 1); A tiles.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from engine.kernels.common import power_of_two

LONG_SPAN = 256
"""From this many rows (query tokens x heads of a group) on, a run has the tiles of long spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTile:
    """How a list of tiles is computed. It is hashable, so that it can be part of a graph's key."""

    rows: int = 64
    positions: int = 64
    """Positions of the context in one step."""
    num_warps: int = 4
    num_stages: int = 5
    """With a page table Triton makes two buffers of 3 and 4 stages, and three of 5."""
    splits: int = 1
    """Programs among which the context is divided; their parts are added in a second launch."""
    use_tma: bool = False
    """Load K and V by the tensor memory accelerator, which needs contiguous pages. A layout with
    scattered pages is computed as if this were false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTiles:
    """A list of tiles that are computed alike, on the host."""

    tile: AttentionTile
    run_A: np.ndarray
    """int32: the run of each tile; -1 for a tile that is not there and costs nothing."""
    first_A: np.ndarray
    """int32: index in Q of each tile's first query token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A list of tiles on the device; the fields as in HostTiles."""

    tile: AttentionTile
    run_A: Tensor
    first_A: Tensor


def plan_tiles(
    query_starts_R1: np.ndarray, num_heads: int, num_kv_heads: int, batch_invariant: bool
) -> list[HostTiles]:
    """The tiles of all runs, in at most two lists: those of long spans, and the others.

    Run r has the query tokens query_starts[r] .. query_starts[r + 1] - 1; a run without any has no
    tile. `batch_invariant`: no splits, because their number follows from the number of runs, and
    nothing else here changes a run's bits with its neighbours.

    Chosen on an H100 with head size 128: groups of 1 and 4 heads, spans of 32 and 64 over contexts
    of 640 and 1024 with 1 to 128 runs, and spans of 123 to 1024 over themselves with 8 and 16 runs.
    """
    group = power_of_two(num_heads // num_kv_heads)
    spans_R = np.diff(query_starts_R1)
    is_long_R = spans_R * group >= LONG_SPAN
    least_rows = max(64, group)
    long = AttentionTile(rows=least_rows, num_stages=3, use_tma=True)
    short = AttentionTile(rows=least_rows)
    if not batch_invariant:
        short = _split(short, spans_R[~is_long_R], num_kv_heads, group)
    lists = (
        (np.flatnonzero(is_long_R), long),
        (np.flatnonzero(~is_long_R & (spans_R > 0)), short),
    )
    return [_tiles_of(query_starts_R1, runs, tile, group) for runs, tile in lists if runs.size]


def _split(
    tile: AttentionTile, spans_R: np.ndarray, num_kv_heads: int, group: int
) -> AttentionTile:
    """The tile with as many splits as still gain time: up to 8, while there are few programs."""
    num_tiles = int((-(-spans_R * group // tile.rows)).sum())
    most, splits = (128 if group == 1 else 256), 1
    while splits < 8 and 2 * splits * num_tiles * num_kv_heads <= most:
        splits *= 2
    longest = int(spans_R.max(initial=0))
    # Half a tile of rows: faster whole (wgmma wants 64), but measured with splits at 32 rows only.
    is_half = splits > 1 and longest * group <= 32
    return AttentionTile(rows=max(32, group) if is_half else tile.rows, splits=splits)


def _tiles_of(
    query_starts_R1: np.ndarray, runs: np.ndarray, tile: AttentionTile, group: int
) -> HostTiles:
    """The tiles of the runs with these indices, in their order."""
    step = tile.rows // group
    starts, ends = query_starts_R1[runs], query_starts_R1[runs + 1]
    counts = -(-(ends - starts) // step)
    place_in_run_A = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return HostTiles(
        tile=tile,
        run_A=np.repeat(runs, counts).astype(np.int32),
        first_A=(np.repeat(starts, counts) + place_in_run_A * step).astype(np.int32),
    )
