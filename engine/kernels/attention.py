"""Ragged attention over pages: every query token of a run over the run's whole context.

Two kernels. The paged one follows any page table, and can split the context: then one program takes
all splits, or each has a program of its own and a second launch adds them up, with the same bits.
The TMA one is for long spans over contiguous pages. The definition of the operation is in
engine/kernels/reference.py, the plan of tiles in tiles.py, the kernels in attention_kernels.py.

Shape letters: Q query tokens of all runs, packed; R runs; N pages, P positions of a page; T pages
of the longest context; A tiles; H query heads, K key/value heads, E head size.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.kernels.attention_kernels import attention_kernel, attention_tma_kernel, combine_kernel
from engine.kernels.common import NARROW_BYTES, head_bytes, power_of_two, suits_tma, width_of
from engine.kernels.reference import PagedLayout
from engine.kernels.supported import is_interpreted
from engine.kernels.tiles import AttentionTile, HostTiles, Tiles, plan_tiles

__all__ = ["AttentionTile", "HostTiles", "Tiles", "paged_attention", "plan_tiles"]

LOG2_E = 1.4426950408889634
PRECISION = "tf32x3"
"""How float32 is multiplied: as three products of tf32 parts, which the matrix units add to about
float32's precision. In plain float32 the queries of a tile do not fit in registers by far. It means
nothing for narrower types."""
COMBINED_ROWS = 32 if is_interpreted() else 4
"""Rows whose splits one program adds up. Each takes the interpreter as long as many."""


def paged_attention(
    q_QHE: Tensor,
    k_NPKE: Tensor,
    v_NPKE: Tensor,
    layout: PagedLayout,
    tiles: Sequence[Tiles],
    *,
    table_RT: Tensor | None = None,
    out_QHE: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v for every query token over the whole context of its run: o_QHE, in
    q's dtype.

    `tiles` are the lists of `plan_tiles`, on the device. `table_RT` is `layout.page_table(P)`; who
    calls for many layers makes it once. Query tokens of no tile keep what the memory of the output
    held. All tensors are contiguous.
    """
    for x in (q_QHE, k_NPKE, v_NPKE):
        assert x.is_contiguous(), "attention needs contiguous queries and pages"
    out_QHE = torch.empty_like(q_QHE) if out_QHE is None else out_QHE
    for each in tiles:
        tile = _fitting(each.tile, k_NPKE, layout)
        if tile.use_tma:
            _by_tma(q_QHE, k_NPKE, v_NPKE, layout, each, tile, out_QHE)
            continue
        if table_RT is None:
            table_RT = layout.page_table(k_NPKE.shape[1])
        _by_table(q_QHE, k_NPKE, v_NPKE, layout, table_RT, each, tile, out_QHE)
    return out_QHE


def _fitting(tile: AttentionTile, k_NPKE: Tensor, layout: PagedLayout) -> AttentionTile:
    """The tile that the model's head size and dtype and the layout allow: wide heads and float32
    need smaller steps for shared memory, and TMA loads whole heads of contiguous pages."""
    E = k_NPKE.shape[-1]
    bytes_of_position = head_bytes(E, k_NPKE.dtype)
    if tile.use_tma:
        is_whole = width_of(E, 256) == E and suits_tma(k_NPKE)
        if layout.scattered_RT is None and is_whole and bytes_of_position <= NARROW_BYTES:
            return tile
        tile = replace(tile, use_tma=False, num_stages=5)
    if bytes_of_position > NARROW_BYTES:
        positions = 32 if bytes_of_position <= 512 else 16
        return replace(tile, positions=positions, num_stages=3)
    return tile


def _constants(q_QHE: Tensor, k_NPKE: Tensor, tile: AttentionTile) -> dict[str, int | str]:
    (_, H, E), K = q_QHE.shape, k_NPKE.shape[2]
    group = power_of_two(H // K)
    return dict(
        H=H, K=K, E=E, EP=width_of(E, 256), GP=group, BLOCK_Q=tile.rows // group,
        BLOCK_N=tile.positions, PRECISION=PRECISION, num_warps=tile.num_warps,
        num_stages=tile.num_stages, enable_fp_fusion=False,
    )  # fmt: skip


def _by_tma(
    q_QHE: Tensor,
    k_NPKE: Tensor,
    v_NPKE: Tensor,
    layout: PagedLayout,
    tiles: Tiles,
    tile: AttentionTile,
    out_QHE: Tensor,
) -> None:
    K, E = k_NPKE.shape[2:]
    k, v = (
        TensorDescriptor.from_tensor(x.view(-1, K * E), [tile.positions, E])
        for x in (k_NPKE, v_NPKE)
    )
    attention_tma_kernel[(tiles.run_A.shape[0], K)](
        q_QHE, k, v, out_QHE, tiles.run_A, tiles.first_A, layout.query_starts,
        layout.context_lens_R, layout.first_slot_R, E**-0.5 * LOG2_E,
        **_constants(q_QHE, k_NPKE, tile),
    )  # fmt: skip


def _by_table(
    q_QHE: Tensor,
    k_NPKE: Tensor,
    v_NPKE: Tensor,
    layout: PagedLayout,
    table_RT: Tensor,
    tiles: Tiles,
    tile: AttentionTile,
    out_QHE: Tensor,
) -> None:
    (H, E), (P, K), A = q_QHE.shape[1:], k_NPKE.shape[1:3], tiles.run_A.shape[0]
    constants = _constants(q_QHE, k_NPKE, tile)
    splits = dict(SPLITS=tile.splits, STEPS=tile.split_steps)
    num_rows = A * K * tile.rows
    kept = [out_QHE] * 3  # not used where one program takes a whole context
    if tile.is_spread:
        kept = [
            q_QHE.new_empty((tile.splits, num_rows, *size), dtype=torch.float32)
            for size in ((E,), (), ())
        ]
    its_tiles = (tiles.run_A, tiles.first_A, layout.query_starts, layout.context_lens_R)
    attention_kernel[(A, K, tile.splits if tile.is_spread else 1)](
        q_QHE, k_NPKE, v_NPKE, out_QHE, *kept, *its_tiles, table_RT, table_RT.shape[1], num_rows,
        E**-0.5 * LOG2_E, P=P, SPREAD=tile.is_spread, **splits, **constants,
    )  # fmt: skip
    if tile.is_spread:
        combine_kernel[(A, K, tile.rows // COMBINED_ROWS)](
            *kept, out_QHE, *its_tiles, num_rows, H=H, K=K, E=E, EP=constants["EP"],
            GP=constants["GP"], ROWS=tile.rows, BLOCK_N=tile.positions, BLOCK_R=COMBINED_ROWS,
            num_warps=4, enable_fp_fusion=False, **splits,
        )  # fmt: skip
