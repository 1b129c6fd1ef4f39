"""Which tiles of query tokens attention is divided into: planned on the host, in arrays.

A tile is `rows` rows, that is rows / group query tokens of one run with all query heads of one
key/value head, so that grouped heads read K and V once.

The bits of a run's result follow from the order in which its context is added: from the positions
of a step, and from where a context is split. With Splits.BY_CONTEXT or NONE both follow from the
run's own lengths, never from its neighbours.

Imports no triton. Shape letters: R runs (R1 = R + 1); A tiles.
"""

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from torch import Tensor

from engine.kernels.common import power_of_two

LONG_SPAN = 256
"""From this many rows (query tokens x heads of a group) on, a run has the tiles of long spans."""


MOST_SPLITS = 8
STEPS_OF_SPLIT = 4
"""The least steps of a split where contexts are split by their own length: at 1,024 positions 4
splits gain nearly what 8 do, and one program that takes them all has half as many to add."""
MOST_PROGRAMS_TO_SPREAD = 64
"""More have one program for all splits of a context: with 4 splits, as a context of 1,024 positions
has them, these are all that an H100 runs at once, two on a multiprocessor."""


class Splits(Enum):
    """Into what a context is split, so that several programs can share it."""

    NONE = "none"
    BY_CONTEXT = "by context"
    """By its own length alone. Where there are enough programs without, one takes all splits, in
    the same order and with the same bits."""
    BY_PROGRAMS = "by programs"
    """While there are few programs: other neighbours, other bits."""


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
    """The most parts of a context whose softmax is computed alone, before they are added."""
    split_steps: int = 0
    """0: a context has so many equal splits. Otherwise the steps of a split, a power of two;
    doubled for a context that would have more splits."""
    is_spread: bool = False
    """Whether each split has a program of its own and a second launch adds them. Otherwise one
    program takes all."""
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
    query_starts_R1: np.ndarray,
    context_lens_R: np.ndarray,
    num_heads: int,
    num_kv_heads: int,
    splits: Splits,
) -> list[HostTiles]:
    """The tiles of all runs, in at most two lists: those of long spans, which have no splits, and
    the others.

    Run r has the query tokens query_starts[r] .. query_starts[r + 1] - 1 and attends to
    context_lens[r] positions; a run without query tokens has no tile.

    Chosen on an H100 with head size 128: groups of 1 and 4 heads, spans of 32 and 64 over contexts
    of 640 and 1024 with 1 to 128 runs, and spans of 123 to 1024 over themselves with 8 and 16 runs.
    """
    group = power_of_two(num_heads // num_kv_heads)
    spans_R = np.diff(query_starts_R1)
    is_long_R = spans_R * group >= LONG_SPAN
    least_rows = max(64, group)
    long = AttentionTile(rows=least_rows, num_stages=3, use_tma=True)
    short = AttentionTile(rows=least_rows)
    long_runs, short_runs = np.flatnonzero(is_long_R), np.flatnonzero(~is_long_R & (spans_R > 0))
    if splits is not Splits.NONE and short_runs.size:
        longest_context = int(context_lens_R[short_runs].max())
        short = _split(short, spans_R[short_runs], longest_context, num_kv_heads, group, splits)
    lists = ((long_runs, long), (short_runs, short))
    return [_tiles_of(query_starts_R1, runs, tile, group) for runs, tile in lists if runs.size]


def split_by_context(tile: AttentionTile, is_spread: bool) -> AttentionTile:
    """The tile with splits whose places follow from the context's length alone."""
    return replace(tile, splits=MOST_SPLITS, split_steps=STEPS_OF_SPLIT, is_spread=is_spread)


def _split(
    tile: AttentionTile,
    spans_R: np.ndarray,
    longest_context: int,
    num_kv_heads: int,
    group: int,
    splits: Splits,
) -> AttentionTile:
    """The tile with splits, which are spread over programs while there are so few programs that it
    gains time."""
    num_programs = int((-(-spans_R * group // tile.rows)).sum()) * num_kv_heads
    if splits is Splits.BY_CONTEXT:
        if longest_context <= STEPS_OF_SPLIT * tile.positions:
            return tile  # one split at most, whose bits are those of no split
        return split_by_context(tile, is_spread=num_programs <= MOST_PROGRAMS_TO_SPREAD)
    gaining = (128 if group == 1 else 256) // num_programs
    most = min(MOST_SPLITS, 1 << max(gaining.bit_length() - 1, 0))
    # Half a tile of rows: faster whole (wgmma wants 64), but measured with splits at 32 rows only.
    is_half = most > 1 and int(spans_R.max(initial=0)) * group <= 32
    rows = max(32, group) if is_half else tile.rows
    return replace(tile, rows=rows, splits=most, is_spread=most > 1)


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
