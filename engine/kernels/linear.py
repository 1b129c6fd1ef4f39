"""y = x w^T with one accumulator and k in order, so that a row's bits depend on nothing but the
row.

cuBLAS is the faster one and stays the default. It splits k at few rows for some shapes, and then a
row's bits depend on how many there are. On an H100 this kernel's bits are the same for every tile,
and those of cuBLAS where that does not split.

Shape letters: M rows, N output channels, K input channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.kernels.common import FUSES, PRECISION, suits_tma, width_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTile:
    """Rows x columns of a program, and the depth of its steps."""

    rows: int
    columns: int
    depth: int
    num_stages: int
    num_warps: int = 4
    band: int = 8
    """Tiles of rows that go through the columns together, so that weights are read from L2."""
    is_swapped: bool = False
    """Multiply w x^T: the weights fill wgmma's 64 rows where the rows of x are few."""
    use_tma: bool = False
    """Load by the tensor memory accelerator where rows start at multiples of 16 bytes."""


TILES = {
    "x32": LinearTile(rows=32, columns=64, depth=128, num_stages=5, band=1, is_swapped=True),
    "x64": LinearTile(rows=64, columns=64, depth=128, num_stages=5, band=1, is_swapped=True),
    "m64": LinearTile(rows=64, columns=64, depth=128, num_stages=4, use_tma=True),
    "m64w": LinearTile(rows=64, columns=128, depth=64, num_stages=5, use_tma=True),
    "l128": LinearTile(rows=128, columns=128, depth=64, num_stages=4, num_warps=8, use_tma=True),
    "l256": LinearTile(rows=128, columns=256, depth=64, num_stages=3, num_warps=8, use_tma=True),
    "float32": LinearTile(rows=64, columns=64, depth=32, num_stages=3),
}


def choose_tile(M: int, N: int, dtype: torch.dtype) -> LinearTile:
    """The fastest tile on an H100.

    Chosen in bf16 for the linears of LLaDA-8B, LLaDA-MoE and LLaDA2.0-mini (N 1024 to 157184, K 512
    to 12288) at 32 to 8192 rows. In float32 there is one tile.
    """
    if dtype == torch.float32:
        return TILES["float32"]
    if M <= 64:
        return TILES["x32" if M <= 32 else "x64"]
    if M >= 1024:
        return TILES["l256" if triton.cdiv(M, 128) * (N // 256) >= 96 else "l128"]
    if triton.cdiv(M, 128) * (N // 128) >= 128:
        return TILES["l128"]
    return TILES["m64w" if triton.cdiv(M, 64) * (N // 128) >= 96 else "m64"]


def linear(
    x_MK: Tensor,
    w_NK: Tensor,
    bias_N: Tensor | None = None,
    *,
    tile: LinearTile | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """x w^T + bias, [M, N], in `out_dtype` or that of x. A row's bits do not depend on M.

    x and w are contiguous and of one dtype; the sum is in float32. The bias is added before the
    result is rounded.
    """
    assert x_MK.is_contiguous(), "the rows of a linear are contiguous"
    assert w_NK.is_contiguous(), "the weight of a linear is contiguous"
    (M, K), N = x_MK.shape, w_NK.shape[0]
    tile = tile or choose_tile(M, N, x_MK.dtype)
    columns, depth = width_of(N, tile.columns), width_of(K, tile.depth)
    y_MN = x_MK.new_empty((M, N), dtype=out_dtype or x_MK.dtype)
    use_tma = tile.use_tma and suits_tma(x_MK) and suits_tma(w_NK)
    x, w = x_MK, w_NK
    if use_tma:
        x = TensorDescriptor.from_tensor(x_MK, [tile.rows, depth])
        w = TensorDescriptor.from_tensor(w_NK, [columns, depth])
    linear_kernel[(triton.cdiv(M, tile.rows) * triton.cdiv(N, columns),)](
        x, w, y_MN if bias_N is None else bias_N, y_MN, M,
        N=N, K=K, BM=tile.rows, BN=columns, BK=depth, BAND=tile.band, SWAP=tile.is_swapped,
        TMA=use_tma, BIAS=bias_N is not None, PRECISION=PRECISION,
        num_warps=tile.num_warps, num_stages=tile.num_stages, enable_fp_fusion=FUSES,
    )  # fmt: skip
    return y_MN


def linear_reference(x_MK: Tensor, w_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """In float32."""
    return F.linear(x_MK.float(), w_NK.float(), None if bias_N is None else bias_N.float())


@triton.jit(do_not_specialize=["M"])
def linear_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, M,
    N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    BAND: tl.constexpr, SWAP: tl.constexpr, TMA: tl.constexpr, BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile. TMA fills with zeros what lies outside x and w."""
    COLUMNS: tl.constexpr = (N + BN - 1) // BN
    pid = tl.program_id(0)
    band = pid // (BAND * COLUMNS)
    height = tl.minimum(tl.cdiv(M, BM) - band * BAND, BAND)
    m = band * BAND + (pid % (BAND * COLUMNS)) % height
    n = (pid % (BAND * COLUMNS)) // height
    rows = m * BM + tl.arange(0, BM)
    columns = n * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    if not TMA:
        safe_rows = tl.minimum(rows, M - 1).to(tl.int64)
        if N % BN == 0:
            safe_columns = columns
        else:
            safe_columns = tl.minimum(columns, N - 1)
        x_ptrs = x_ptr + safe_rows[:, None] * K + k[None, :]
        w_ptrs = w_ptr + safe_columns.to(tl.int64)[:, None] * K + k[None, :]
    if SWAP:
        acc = tl.zeros([BN, BM], tl.float32)
    else:
        acc = tl.zeros([BM, BN], tl.float32)
    for k0 in range(0, K, BK):
        if TMA:
            x = x_ptr.load([m * BM, k0])
            w = w_ptr.load([n * BN, k0])
        elif K % BK == 0:
            x = tl.load(x_ptrs + k0)
            w = tl.load(w_ptrs + k0)
        else:
            x = tl.load(x_ptrs + k0, mask=(k0 + k < K)[None, :], other=0.0)
            w = tl.load(w_ptrs + k0, mask=(k0 + k < K)[None, :], other=0.0)
        if SWAP:
            acc = tl.dot(w, tl.trans(x), acc, input_precision=PRECISION)
        else:
            acc = tl.dot(x, tl.trans(w), acc, input_precision=PRECISION)
    if SWAP:
        acc = tl.trans(acc)
    if BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    at = rows.to(tl.int64)[:, None] * N + columns[None, :]
    ok = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(y_ptr + at, acc.to(y_ptr.dtype.element_ty), mask=ok)
