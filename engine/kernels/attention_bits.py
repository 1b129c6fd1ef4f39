"""May attention split contexts without a row's bits depending on its neighbours?

Splits whose places follow from a context's own length are added in the same order and by the same
operations whether one program takes them all or each has its own (Splits.BY_CONTEXT). That two
compiled kernels then give the same bits is the compiler's doing, so it is tried on the device when
a model is loaded.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from engine.kernels.attention import AttentionTile, Tiles, paged_attention
from engine.kernels.common import NARROW_BYTES, head_bytes, power_of_two, width_of
from engine.kernels.reference import PagedLayout
from engine.kernels.tiles import Splits, split_by_context

log = logging.getLogger(__name__)

PAGE_SIZE = 16
"""Of what is tried. Another size changes addresses, and no bit."""
CONTEXTS = (64, 200, 313, 697, 1273, 2297)
"""Contexts of one split, of some, and of so many steps that splits are doubled; all but the first
end within a step."""


@cache
def splits_with_same_bits(
    num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> Splits:
    """BY_CONTEXT, if on this device the bits are the same whether one program takes a context's
    splits or each has its own, and with one split those of attention without; otherwise NONE, and
    the log says so. NONE also for heads so wide that two softmaxes would not fit into a program's
    registers.

    Random queries, keys and values are tried in `dtype`. The device is read once.
    """
    is_padded = width_of(head_dim, 256) != head_dim  # masks take the last registers
    if head_bytes(head_dim, dtype) > NARROW_BYTES - is_padded:
        return Splits.NONE
    first, *others = _attended(num_heads, num_kv_heads, head_dim, dtype, device)
    differs = torch.stack([(its != first).any() for its in others])
    if not differs.any():
        return Splits.BY_CONTEXT
    log.info(
        "engine.batch_invariant: attention that shares a context among programs has other bits on "
        "this GPU, so it does not; with few sequences a forward takes a few percent longer"
    )
    return Splits.NONE


def _attended(H: int, K: int, E: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """The bits of a tile over each of the contexts: with one program for all splits, with one for
    each, and without splits where there is one."""
    generator, count = torch.Generator(device).manual_seed(0), len(CONTEXTS)

    def normal(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float32, device=device)
        return x.to(dtype)

    def ints(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    group = power_of_two(H // K)
    plain = AttentionTile(rows=max(64, group))
    tile = split_by_context(plain, is_spread=False)
    span = max(tile.rows // group - 1, 1)
    starts = [span * run for run in range(count + 1)]
    pages = [-(-context // PAGE_SIZE) for context in CONTEXTS]
    layout = PagedLayout(
        query_starts=ints(starts),
        first_slot_R=ints([PAGE_SIZE * sum(pages[:run]) for run in range(count)]),
        context_lens_R=ints(CONTEXTS),
        longest_context=max(CONTEXTS),
        host_runs=None,
    )
    q, (k, v) = normal(starts[-1], H, E), normal(2, sum(pages), PAGE_SIZE, K, E)
    num_short = sum(context <= tile.split_steps * tile.positions for context in CONTEXTS)

    def attend(*parts: tuple[AttentionTile, range]) -> Tensor:
        tiles = [
            Tiles(tile=its, run_A=ints(runs), first_A=ints([starts[run] for run in runs]))
            for its, runs in parts
        ]
        return paged_attention(q, k, v, layout, tiles).view(torch.uint8)

    return [
        attend((tile, range(count))),
        attend((replace(tile, is_spread=True), range(count))),
        attend((plain, range(num_short)), (tile, range(num_short, count))),
    ]
