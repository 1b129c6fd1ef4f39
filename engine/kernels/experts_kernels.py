"""The kernels of engine/kernels/experts.py.

Shape letters as there. XP, DP: X and D up to powers of two.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_pairs", "num_tiles", "first_expert"])
def place_kernel(
    chosen_ptr, rank_ptr, counts_ptr, pair_ptr, row_ptr,
    tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_pairs, num_tiles, first_expert,
    X: tl.constexpr, XP: tl.constexpr, BM: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """BLOCK_P pairs and BLOCK_T tiles of the X experts from the first on; every program adds up all
    their counts for itself. Pairs of other experts have no row."""
    pid = tl.program_id(0)
    x = tl.arange(0, XP)
    counts = tl.load(counts_ptr + first_expert + x, mask=x < X, other=0)
    tiles = (counts + BM - 1) // BM
    p = pid * BLOCK_P + tl.arange(0, BLOCK_P)
    expert = tl.load(chosen_ptr + p, mask=p < num_pairs, other=-1) - first_expert
    ok = (p < num_pairs) & (expert >= 0) & (expert < X)
    before = tl.sum(tl.where(x[None, :] < expert[:, None], counts[None, :], 0), 1)
    row = before + tl.load(rank_ptr + p, mask=ok, other=0)
    tl.store(pair_ptr + row, p, mask=ok)
    if ROWS:
        tl.store(row_ptr + p, row, mask=ok)
    t = pid * BLOCK_T + tl.arange(0, BLOCK_T)
    is_before = (tl.cumsum(tiles, 0)[None, :] <= t[:, None]) & (x < X)[None, :]
    expert = tl.sum(is_before.to(tl.int32), 1)
    first_row = tl.sum(tl.where(is_before, counts[None, :], 0), 1)
    first_tile = tl.sum(tl.where(is_before, tiles[None, :], 0), 1)
    count = tl.sum(tl.where(x[None, :] == expert[:, None], counts[None, :], 0), 1)
    ok = t < num_tiles
    tl.store(tile_expert_ptr + t, tl.where(expert < X, expert, -1), mask=ok)
    tl.store(tile_row_ptr + t, first_row + (t - first_tile) * BM, mask=ok)
    tl.store(tile_end_ptr + t, first_row + count, mask=ok)


@triton.jit(do_not_specialize=["first_expert"])
def spread_kernel(
    x_ptr, chosen_ptr, row_ptr, out_ptr, first_expert,
    X: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, C: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A token's row to the rows of its pairs. WHOLE: every pair has one."""
    m = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, DP)
    x = tl.load(x_ptr + m * D + d, mask=d < D)
    for c in tl.static_range(C):
        row = tl.load(row_ptr + m * C + c).to(tl.int64)
        has_row = d < D
        if not WHOLE:
            expert = tl.load(chosen_ptr + m * C + c) - first_expert
            has_row = d < tl.where((expert >= 0) & (expert < X), D, 0)
        tl.store(out_ptr + row * D + d, x, mask=has_row)


@triton.jit
def _tile_of(pid, num_tiles, COLUMNS: tl.constexpr, BAND: tl.constexpr):
    """(tile of rows, tile of columns): BAND tiles of rows go through the columns together."""
    band = pid // (BAND * COLUMNS)
    height = tl.minimum(num_tiles - band * BAND, BAND)
    inside = pid % (BAND * COLUMNS)
    return band * BAND + inside % height, inside // height


@triton.jit(do_not_specialize=["num_tiles"])
def gate_up_kernel(
    x_ptr, w_ptr, middle_ptr, pair_ptr, tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_tiles,
    D: tl.constexpr, I: tl.constexpr, C: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BAND: tl.constexpr, TMA: tl.constexpr,
    TMA_ROWS: tl.constexpr, SORTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """silu(x gate^T) * (x up^T) of a tile's rows: gathered on loading, or (SORTED) already side by
    side, and then by TMA too (TMA_ROWS). TMA fills with zeros what lies behind the depth."""
    t, n = _tile_of(tl.program_id(0), num_tiles, (I + BN - 1) // BN, BAND)
    expert = tl.load(tile_expert_ptr + t)
    if expert < 0:
        return
    first = tl.load(tile_row_ptr + t)
    end = tl.load(tile_end_ptr + t)
    rows = first + tl.arange(0, BM)
    ok = rows < end
    k = tl.arange(0, BK)
    columns = n * BN + tl.arange(0, BN)
    if not TMA_ROWS:
        if SORTED:
            token = tl.minimum(rows, end - 1)
        else:
            token = tl.load(pair_ptr + tl.minimum(rows, end - 1)) // C
        x_ptrs = x_ptr + token.to(tl.int64)[:, None] * D + k[None, :]
    w_row = expert * (2 * I) + n * BN
    if not TMA:
        if I % BN == 0:
            inside = columns
        else:
            inside = tl.minimum(columns, I - 1)
        w_ptrs = w_ptr + expert.to(tl.int64) * (2 * I * D) + inside[:, None] * D + k[None, :]
    gate = tl.zeros([BM, BN], tl.float32)
    up = tl.zeros([BM, BN], tl.float32)
    for k0 in range(0, D, BK):
        if TMA_ROWS:
            x = x_ptr.load([first, k0])
        elif D % BK == 0:
            x = tl.load(x_ptrs + k0)
        else:
            x = tl.load(x_ptrs + k0, mask=(k0 + k < D)[None, :], other=0.0)
        if TMA:
            w_gate = w_ptr.load([w_row, k0])
            w_up = w_ptr.load([w_row + I, k0])
        elif D % BK == 0:
            w_gate = tl.load(w_ptrs + k0)
            w_up = tl.load(w_ptrs + (I * D + k0))
        else:
            w_gate = tl.load(w_ptrs + k0, mask=(k0 + k < D)[None, :], other=0.0)
            w_up = tl.load(w_ptrs + (I * D + k0), mask=(k0 + k < D)[None, :], other=0.0)
        gate = tl.dot(x, tl.trans(w_gate), gate, input_precision=PRECISION)
        up = tl.dot(x, tl.trans(w_up), up, input_precision=PRECISION)
    y = gate * tl.sigmoid(gate) * up
    at = rows.to(tl.int64)[:, None] * I + columns[None, :]
    inside = ok[:, None] & (columns < I)[None, :]
    tl.store(middle_ptr + at, y.to(middle_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_tiles"])
def down_kernel(
    middle_ptr, w_ptr, y_ptr, pair_ptr, tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_tiles,
    D: tl.constexpr, I: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BAND: tl.constexpr, TMA: tl.constexpr,
    TMA_ROWS: tl.constexpr, SORTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """middle down^T, to the pair's row in the order of tokens, or (SORTED) of experts."""
    t, n = _tile_of(tl.program_id(0), num_tiles, (D + BN - 1) // BN, BAND)
    expert = tl.load(tile_expert_ptr + t)
    if expert < 0:
        return
    first = tl.load(tile_row_ptr + t)
    end = tl.load(tile_end_ptr + t)
    rows = first + tl.arange(0, BM)
    ok = rows < end
    safe = tl.minimum(rows, end - 1)
    k = tl.arange(0, BK)
    columns = n * BN + tl.arange(0, BN)
    if not TMA_ROWS:
        x_ptrs = middle_ptr + safe.to(tl.int64)[:, None] * I + k[None, :]
    if not TMA:
        if D % BN == 0:
            inside = columns
        else:
            inside = tl.minimum(columns, D - 1)
        w_ptrs = w_ptr + expert.to(tl.int64) * (D * I) + inside[:, None] * I + k[None, :]
    acc = tl.zeros([BM, BN], tl.float32)
    for k0 in range(0, I, BK):
        if TMA_ROWS:
            x = middle_ptr.load([first, k0])
        elif I % BK == 0:
            x = tl.load(x_ptrs + k0)
        else:
            x = tl.load(x_ptrs + k0, mask=(k0 + k < I)[None, :], other=0.0)
        if TMA:
            w = w_ptr.load([expert * D + n * BN, k0])
        elif I % BK == 0:
            w = tl.load(w_ptrs + k0)
        else:
            w = tl.load(w_ptrs + k0, mask=(k0 + k < I)[None, :], other=0.0)
        acc = tl.dot(x, tl.trans(w), acc, input_precision=PRECISION)
    if SORTED:
        to = rows
    else:
        to = tl.load(pair_ptr + rows, mask=ok, other=0)
    at = to.to(tl.int64)[:, None] * D + columns[None, :]
    inside = ok[:, None] & (columns < D)[None, :]
    tl.store(y_ptr + at, acc.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["first_expert"])
def combine_kernel(
    y_ptr, chosen_ptr, row_ptr, weights_ptr, x_ptr, shared_ptr, norm_ptr, counts_ptr,
    sum_ptr, out_ptr, eps, first_expert,
    D: tl.constexpr, DP: tl.constexpr, C: tl.constexpr, X: tl.constexpr, ALL_X: tl.constexpr,
    ALL_XP: tl.constexpr, ROWS: tl.constexpr, SHARED: tl.constexpr, WHOLE: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """One token. ROWS: its pairs' outputs are in the order of experts. WHOLE: every pair has one.
    NORM: add x, and write the norm of the sum too."""
    m = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, DP)
    ok = d < D
    dtype = sum_ptr.dtype.element_ty
    if m == 0:
        x = tl.arange(0, ALL_XP)
        tl.store(counts_ptr + x, tl.zeros([ALL_XP], tl.int32), mask=x < ALL_X)
    acc = tl.zeros([DP], tl.float32)
    for c in tl.static_range(C):
        weight = tl.load(weights_ptr + m * C + c)
        row = m * C + c
        has_row = ok
        if not WHOLE:
            expert = tl.load(chosen_ptr + row) - first_expert
            has_row = d < tl.where((expert >= 0) & (expert < X), D, 0)
        if ROWS:
            row = tl.load(row_ptr + row).to(tl.int64)
        y = tl.load(y_ptr + row * D + d, mask=has_row, other=0.0).to(tl.float32)
        # Fused by name: the compiler does it or not, depending on WHOLE, and bits would depend on
        # whether a graph pads the rows. Without a row y is 0.
        acc = tl.fma(weight, y, acc)
    if SHARED:
        acc += tl.load(shared_ptr + m * D + d, mask=ok, other=0.0).to(tl.float32)
    if NORM:
        acc += tl.load(x_ptr + m * D + d, mask=ok, other=0.0).to(tl.float32)
    total = acc.to(dtype)
    tl.store(sum_ptr + m * D + d, total, mask=ok)
    if NORM:
        total = total.to(tl.float32)
        rstd = tl.rsqrt(tl.sum(total * total, 0) / D + eps)
        weight = tl.load(norm_ptr + d, mask=ok, other=0.0)
        tl.store(out_ptr + m * D + d, ((total * rstd).to(dtype) * weight).to(dtype), mask=ok)
