"""Mixture of experts without sorting: route, place, gate_up + SwiGLU, down, combine; five launches
a layer, six where many rows make it pay to copy each token's row to its experts first.

A pair is a token and one of its experts. The router counts each expert's pairs and gives every pair
its rank among them (by atomics: the order within an expert varies, no result depends on it).
`place` turns ranks into rows, expert by expert, and into tiles of rows. A token's outputs are added
in the order in which it chose its experts. On an H100 every bf16 tile gives a token the same bits,
whatever the batch.

With expert parallelism a rank has some of the experts: pairs of the others take no row and add
nothing. The router chooses among all, on every rank alike.

Shape letters: M tokens, D hidden size, X experts of this rank, C experts that a token chooses, I
width of an expert, P = M C pairs, N tiles of rows.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.kernels.common import FUSES, PRECISION, power_of_two, suits_tma, width_of
from engine.kernels.expert_tiles import ExpertTile, choose_tile
from engine.kernels.experts_kernels import (
    combine_kernel,
    down_kernel,
    gate_up_kernel,
    place_kernel,
    spread_kernel,
)
from engine.kernels.route import RouterWeights, route

PLACED_PAIRS = 16384
"""Pairs x experts that one program of `place` compares at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWeights:
    """The experts of this rank; both tensors contiguous and in the dtype of the hidden states."""

    gate_up_XID: Tensor
    """[X, 2 I, D], gate rows first."""
    down_XDI: Tensor
    first_expert: int = 0
    """The router's index of the first of them."""


def moe(
    h_MD: Tensor,
    x_MD: Tensor,
    router: RouterWeights,
    experts: ExpertWeights,
    next_norm_D: Tensor,
    eps: float,
    shared_MD: Tensor | None = None,
    *,
    num_rows: Tensor | None = None,
    tile: ExpertTile | None = None,
) -> tuple[Tensor, Tensor]:
    """(x + all experts + shared, its RMS norm times next_norm): h is the normed input, x the
    residual, shared the shared expert's output.

    Rows from `num_rows` (int32 [1], on the device) on only pad a graph: they choose no expert.
    """
    work = _Work.of(h_MD, router, experts, num_rows, tile)
    sum_MD, norm_MD = torch.empty_like(x_MD), torch.empty_like(x_MD)
    weights_MC = _run_experts(h_MD, router, experts, num_rows, work)
    _combine(
        work, weights_MC, router, experts, shared_MD, sum_MD,
        x_MD=x_MD, norm_MD=norm_MD, next_norm_D=next_norm_D, eps=eps,
    )  # fmt: skip
    return sum_MD, norm_MD


def moe_partial(
    h_MD: Tensor,
    router: RouterWeights,
    experts: ExpertWeights,
    shared_MD: Tensor | None = None,
    *,
    num_rows: Tensor | None = None,
    tile: ExpertTile | None = None,
) -> Tensor:
    """This rank's part of all experts + shared, [M, D] in the dtype of h: the caller adds the parts
    of all ranks. Otherwise as `moe`."""
    work = _Work.of(h_MD, router, experts, num_rows, tile)
    y_MD = torch.empty_like(h_MD)
    weights_MC = _run_experts(h_MD, router, experts, num_rows, work)
    _combine(work, weights_MC, router, experts, shared_MD, y_MD)
    return y_MD


def experts_reference(
    h_MD: Tensor, chosen_MC: Tensor, weights_MC: Tensor, experts: ExpertWeights
) -> Tensor:
    """The weighted sum of this rank's experts, in float32, expert by expert."""
    out_MD = torch.zeros(h_MD.shape, dtype=torch.float32, device=h_MD.device)
    for expert in range(experts.down_XDI.shape[0]):
        rows, places = (chosen_MC == experts.first_expert + expert).nonzero(as_tuple=True)
        gate_up, down = experts.gate_up_XID[expert].float(), experts.down_XDI[expert].float()
        gate, up = F.linear(h_MD[rows].float(), gate_up).chunk(2, dim=-1)
        y = F.linear(F.silu(gate) * up, down)
        out_MD.index_add_(0, rows, y * weights_MC[rows, places][:, None])
    return out_MD


@dataclass(slots=True, kw_only=True)
class _Work:
    """All memory between `route` and `combine`, allocated before either is launched: running out of
    memory between them would leave the router's counts behind, and a forward that is tried again
    would place its rows by them."""

    tile: ExpertTile
    is_whole: bool
    """Whether every pair has a row on this rank."""
    num_tiles: int
    pair_P: Tensor
    """int32: the pair in each row."""
    row_P: Tensor
    """int32: the row of each pair; only where the tile sorts."""
    tile_expert_N: Tensor
    """int32: the expert of each tile; -1 behind the last."""
    tile_row_N: Tensor
    """int32: its first row."""
    tile_end_N: Tensor
    """int32: where its expert's rows end."""
    sorted_PD: Tensor
    middle_PI: Tensor
    y_PD: Tensor
    """In the order of tokens or, where the tile sorts, in that of experts."""
    chosen_MC: Tensor | None = None

    @classmethod
    def of(
        cls,
        h_MD: Tensor,
        router: RouterWeights,
        experts: ExpertWeights,
        num_rows: Tensor | None,
        tile: ExpertTile | None,
    ) -> "_Work":
        (M, D), (X, _, I) = h_MD.shape, experts.down_XDI.shape
        if tile is None:
            tile = choose_tile(M, router.num_chosen, router.num_experts, h_MD.dtype)
        P = M * router.num_chosen
        # Every expert with a row has at least one tile; the other rows fill whole ones.
        num_tiles = P // tile.rows + min(X, P)

        def ints(count: int) -> Tensor:
            return h_MD.new_empty(count, dtype=torch.int32)

        return cls(
            tile=tile,
            is_whole=num_rows is None and router.num_experts == X,
            num_tiles=num_tiles,
            pair_P=ints(P),
            row_P=ints(P if tile.is_sorted else 1),
            tile_expert_N=ints(num_tiles),
            tile_row_N=ints(num_tiles),
            tile_end_N=ints(num_tiles),
            sorted_PD=h_MD.new_empty((P, D)) if tile.is_sorted else h_MD,
            middle_PI=h_MD.new_empty((P, I)),
            y_PD=h_MD.new_empty((P, D)),
        )

    @property
    def tiles(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tile_expert_N, self.tile_row_N, self.tile_end_N


def _run_experts(
    h_MD: Tensor,
    router: RouterWeights,
    experts: ExpertWeights,
    num_rows: Tensor | None,
    work: _Work,
) -> Tensor:
    """Fills y_PD, and gives the weights of the pairs, float32 [M, C]."""
    assert h_MD.is_contiguous(), "the experts' rows are contiguous"
    D, tile = h_MD.shape[1], work.tile
    work.chosen_MC, weights_MC, rank_MC = route(h_MD, router, num_rows)
    _place(work, rank_MC, router, experts)
    if tile.is_sorted:
        spread_kernel[(h_MD.shape[0],)](
            h_MD, work.chosen_MC, work.row_P, work.sorted_PD, experts.first_expert,
            X=experts.down_XDI.shape[0], D=D, DP=power_of_two(D), C=router.num_chosen,
            WHOLE=work.is_whole, num_warps=8, enable_fp_fusion=FUSES,
        )  # fmt: skip
    _products(work, experts, router.num_chosen)
    return weights_MC


def _place(work: _Work, rank_MC: Tensor, router: RouterWeights, experts: ExpertWeights) -> None:
    P, X = work.pair_P.shape[0], experts.down_XDI.shape[0]
    pairs = min(64, max(1, PLACED_PAIRS // power_of_two(X)))
    tiles = max(1, pairs // 2)
    grid = (max(triton.cdiv(P, pairs), triton.cdiv(work.num_tiles, tiles)),)
    place_kernel[grid](
        work.chosen_MC, rank_MC, router.counts_X, work.pair_P, work.row_P, *work.tiles, P,
        work.num_tiles, experts.first_expert, X=X, XP=power_of_two(X), BM=work.tile.rows,
        ROWS=work.tile.is_sorted, BLOCK_P=pairs, BLOCK_T=tiles, num_warps=4,
        enable_fp_fusion=FUSES,
    )  # fmt: skip


def _products(work: _Work, experts: ExpertWeights, num_chosen: int) -> None:
    tile, (_, D, I) = work.tile, experts.down_XDI.shape
    gate_up_w, down_w = experts.gate_up_XID.view(-1, D), experts.down_XDI.view(-1, I)
    use_tma = tile.use_tma and suits_tma(gate_up_w) and suits_tma(down_w)
    tma_rows = tile.tma_rows and use_tma
    constants = dict(
        D=D, I=I, BM=tile.rows, BAND=tile.band, TMA=use_tma, SORTED=tile.is_sorted,
        PRECISION=PRECISION,
    )  # fmt: skip
    widest, deepest, stages, warps = tile.up
    columns, depth = width_of(I, widest), width_of(D, deepest)
    gate_up_kernel[(work.num_tiles * triton.cdiv(I, columns),)](
        _by_tma(work.sorted_PD, tile.rows, depth, tma_rows and tile.is_sorted),
        _by_tma(gate_up_w, columns, depth, use_tma),
        work.middle_PI, work.pair_P, *work.tiles, work.num_tiles, C=num_chosen, BN=columns,
        BK=depth, TMA_ROWS=tma_rows and tile.is_sorted, num_warps=warps, num_stages=stages,
        enable_fp_fusion=FUSES, **constants,
    )  # fmt: skip
    widest, deepest, stages, warps = tile.down
    columns, depth = width_of(D, widest), width_of(I, deepest)
    down_kernel[(work.num_tiles * triton.cdiv(D, columns),)](
        _by_tma(work.middle_PI, tile.rows, depth, tma_rows),
        _by_tma(down_w, columns, depth, use_tma),
        work.y_PD, work.pair_P, *work.tiles, work.num_tiles, BN=columns, BK=depth,
        TMA_ROWS=tma_rows, num_warps=warps, num_stages=stages, enable_fp_fusion=FUSES,
        **constants,
    )  # fmt: skip


def _by_tma(matrix: Tensor, rows: int, columns: int, use_tma: bool) -> Tensor | TensorDescriptor:
    return TensorDescriptor.from_tensor(matrix, [rows, columns]) if use_tma else matrix


def _combine(
    work: _Work,
    weights_MC: Tensor,
    router: RouterWeights,
    experts: ExpertWeights,
    shared_MD: Tensor | None,
    sum_MD: Tensor,
    *,
    x_MD: Tensor | None = None,
    norm_MD: Tensor | None = None,
    next_norm_D: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """The weighted sum into sum_MD, with x and its norm where given; empties the counts."""
    (M, D), X = sum_MD.shape, experts.down_XDI.shape[0]
    combine_kernel[(M,)](
        work.y_PD, work.chosen_MC, work.row_P, weights_MC, sum_MD if x_MD is None else x_MD,
        sum_MD if shared_MD is None else shared_MD, sum_MD if next_norm_D is None else next_norm_D,
        router.counts_X, sum_MD, sum_MD if norm_MD is None else norm_MD, eps, experts.first_expert,
        D=D, DP=power_of_two(D), C=router.num_chosen, X=X, ALL_X=router.num_experts,
        ALL_XP=power_of_two(router.num_experts), ROWS=work.tile.is_sorted,
        SHARED=shared_MD is not None, WHOLE=work.is_whole, NORM=norm_MD is not None, num_warps=8,
        enable_fp_fusion=FUSES,
    )  # fmt: skip
