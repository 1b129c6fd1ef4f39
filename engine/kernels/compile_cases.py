"""What engine/kernels/compile.py compiles: every kernel with every tile, in the shapes of LLaDA-8B,
LLaDA-MoE, LLaDA2.0-mini and Dream-7B, and with widths that are no multiple of a tile.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from engine.kernels import attention, expert_tiles, experts, head, linear, norm, qkv, route, swiglu
from engine.kernels.reference import PagedLayout
from engine.kernels.tiles import AttentionTile, Tiles

BF16, F32 = torch.bfloat16, torch.float32


def _empty(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _ints(*shape: int) -> Tensor:
    return _empty(*shape, dtype=torch.int32)


def _attention(H: int, K: int, E: int, dtype: torch.dtype, tile: AttentionTile) -> None:
    layout = PagedLayout(
        query_starts=_ints(9), first_slot_R=_ints(8), context_lens_R=_ints(8),
        longest_context=1024, host_runs=None,
    )  # fmt: skip
    pages = _empty(512, 16, K, E, dtype=dtype)
    tiles = Tiles(tile=tile, run_A=_ints(32), first_A=_ints(32))
    attention.paged_attention(_empty(256, H, E, dtype=dtype), pages, pages, layout, [tiles])


def _qkv(H: int, K: int, E: int, R: int, dtype: torch.dtype, has_norm: bool) -> None:
    norm_E = _empty(E, dtype=dtype) if has_norm else None
    projected, angles = _empty(64, (H + 2 * K) * E, dtype=dtype), _empty(64, R, dtype=F32)
    pages, slots = _empty(512, 16, K, E, dtype=dtype), _empty(64, dtype=torch.int64)
    qkv.norm_rotate_write(projected, norm_E, norm_E, angles, angles, slots, pages, pages, 1e-6)


def _norm(D: int, dtype: torch.dtype, has_delta: bool) -> None:
    x = _empty(64, D, dtype=dtype)
    norm.add_norm(x, x if has_delta else None, _empty(D, dtype=dtype), 1e-6)


def _moe(
    X: int,
    D: int,
    I: int,
    dtype: torch.dtype,
    tile: str,
    *,
    is_sigmoid: bool = False,
    is_partial: bool = False,
    M: int = 512,
) -> None:
    router = route.RouterWeights(
        parts=_empty(3 * X, D) if dtype == BF16 else _empty(X, D, dtype=F32),
        bias_X=_empty(X, dtype=F32) if is_sigmoid else None,
        num_chosen=8, is_sigmoid=is_sigmoid, is_normalised=is_sigmoid, scale=1.0,
        num_groups=8 if is_sigmoid else 1, num_chosen_groups=4 if is_sigmoid else 1,
        counts_X=_ints(X), own_below=2**62,
    )  # fmt: skip
    own = X // 2 if is_partial else X
    weights = experts.ExpertWeights(
        gate_up_XID=_empty(own, 2 * I, D, dtype=dtype), down_XDI=_empty(own, D, I, dtype=dtype)
    )
    h, chosen = _empty(M, D, dtype=dtype), expert_tiles.TILES[tile]
    if is_partial:
        experts.moe_partial(h, router, weights, h, num_rows=_ints(1), tile=chosen)
    else:
        shared = h if is_sigmoid else None
        experts.moe(h, h, router, weights, _empty(D, dtype=dtype), 1e-6, shared, tile=chosen)


def _linear(M: int, N: int, K: int, dtype: torch.dtype, tile: str, has_bias: bool) -> None:
    bias = _empty(N, dtype=dtype) if has_bias else None
    x, w = _empty(M, K, dtype=dtype), _empty(N, K, dtype=dtype)
    linear.linear(x, w, bias, tile=linear.TILES[tile])


def _head(V: int, dtype: torch.dtype) -> None:
    noise = head.Noise(key_M=_empty(64, dtype=torch.int64), temperature_M=_empty(64, dtype=F32))
    head.reduce(_empty(64, V, dtype=dtype), noise)


HEADS = {"llada_8b": (32, 32, 128), "llada2_mini": (16, 4, 128), "dream": (28, 4, 128)}
ATTENTION_TILES = {
    "paged": AttentionTile(),
    "4 splits": AttentionTile(splits=4, is_spread=True),
    "own splits": AttentionTile(splits=8, split_steps=4),
    "own splits spread": AttentionTile(splits=8, split_steps=4, is_spread=True),
    "32 rows 8 splits": AttentionTile(rows=32, splits=8, is_spread=True),
    "TMA": AttentionTile(num_stages=3, use_tma=True),
}


def _cases() -> dict[str, Callable[[], object]]:
    cases: dict[str, Callable[[], object]] = {}
    for name, sizes in HEADS.items():
        for tile_name, tile in ATTENTION_TILES.items():
            cases[f"attention {tile_name}, {name}"] = partial(_attention, *sizes, BF16, tile)
    for E in (64, 80, 256):
        cases[f"attention paged, head of {E}"] = partial(_attention, 8, 4, E, BF16, AttentionTile())
    for E, dtype, kind in ((64, BF16, ""), (40, BF16, ""), (64, F32, "float32, ")):
        tile = ATTENTION_TILES["own splits"]
        name = f"attention own splits, {kind}head of {E}"
        cases[name] = partial(_attention, 8, 4, E, dtype, tile)
    for E in (64, 128, 256):
        tile = AttentionTile()
        cases[f"attention paged, float32, head of {E}"] = partial(_attention, 8, 4, E, F32, tile)
    for dtype in (BF16, F32):
        kind = "bf16" if dtype == BF16 else "float32"
        cases[f"qkv, 16/16, norm, {kind}"] = partial(_qkv, 16, 16, 128, 64, dtype, True)
        cases[f"qkv, 16/4, half rotary, {kind}"] = partial(_qkv, 16, 4, 128, 32, dtype, True)
        cases[f"qkv, 28/4, no norm, {kind}"] = partial(_qkv, 28, 4, 128, 64, dtype, False)
        for D in (2048, 4096, 3584):
            cases[f"norm of {D}, {kind}"] = partial(_norm, D, dtype, True)
        gate_up = _empty(64, 2 * 12288, dtype=dtype)
        cases[f"swiglu, {kind}"] = partial(swiglu.swiglu, gate_up)
        cases[f"head 157184, {kind}"] = partial(_head, 157184, dtype)
    for tile_name in expert_tiles.TILES:
        dtype = F32 if tile_name == "float32" else BF16
        cases[f"experts {tile_name}, 64 x 1024"] = partial(_moe, 64, 2048, 1024, dtype, tile_name)
        cases[f"experts {tile_name}, 256 x 512"] = partial(
            _moe, 256, 2048, 512, dtype, tile_name, is_sigmoid=True
        )
        cases[f"experts {tile_name}, partial, 96 x 200"] = partial(
            _moe, 96, 1000, 200, dtype, tile_name, is_partial=True
        )
    for tile_name, linear_tile in linear.TILES.items():
        dtype, M = (F32 if tile_name == "float32" else BF16), linear_tile.rows
        cases[f"linear {tile_name}"] = partial(_linear, M, 4096, 4096, dtype, tile_name, False)
        cases[f"linear {tile_name}, odd, bias"] = partial(
            _linear, M, 1000, 300, dtype, tile_name, True
        )
    return cases


CASES = list(_cases().items())
