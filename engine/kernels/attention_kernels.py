"""The kernels of engine/kernels/attention.py.

Shape letters as there; EP: the head size up to a power of two of at least 16; GP: the heads of a
group up to a power of two.
"""

import triton
import triton.language as tl


@triton.jit
def _step(
    q, acc, top, total, k_ptr, v_ptr, table_ptr, n0, context_len, kv_head, scale,
    K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr, BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_N more positions of the context; MASKED: some of them lie behind its end."""
    n = n0 + tl.arange(0, BLOCK_N)
    e = tl.arange(0, EP)
    if MASKED:
        page = tl.load(table_ptr + n // P, mask=n < context_len, other=0)
    else:
        page = tl.load(table_ptr + n // P)
    slot = page.to(tl.int64) * P + n % P
    at = (slot[:, None] * K + kv_head) * E + e[None, :]
    if MASKED or E < EP:
        ok = (n < context_len)[:, None] & (e < E)[None, :]
        k = tl.load(k_ptr + at, mask=ok, other=0.0)
        v = tl.load(v_ptr + at, mask=ok, other=0.0)
    else:
        k = tl.load(k_ptr + at)
        v = tl.load(v_ptr + at)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if MASKED:
        s = tl.where(n[None, :] < context_len, s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1))
    p = tl.exp2(s - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_top, total


@triton.jit(do_not_specialize=["T", "Q"])
def attention_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, part_ptr, log_sum_ptr,
    tile_run_ptr, tile_first_ptr, starts_ptr, context_ptr, table_ptr, T, Q, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr,
    GP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile, one key/value head, one split of the context."""
    GROUP: tl.constexpr = H // K
    t = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    run = tl.load(tile_run_ptr + t)
    if run < 0:
        return
    end = tl.load(starts_ptr + run + 1)
    context_len = tl.load(context_ptr + run)
    m = tl.arange(0, BLOCK_Q * GP)
    e = tl.arange(0, EP)
    token = tl.load(tile_first_ptr + t) + m // GP
    valid = (token < end) & (m % GP < GROUP)
    row = token.to(tl.int64) * H + kv_head * GROUP + m % GP
    at = row[:, None] * E + e[None, :]
    ok = valid[:, None] & (e < E)[None, :]
    q = tl.load(q_ptr + at, mask=ok, other=0.0)

    top = tl.full([BLOCK_Q * GP], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q * GP], tl.float32)
    acc = tl.zeros([BLOCK_Q * GP, EP], tl.float32)
    chunk = tl.cdiv(tl.cdiv(context_len, BLOCK_N), SPLITS) * BLOCK_N
    low = split * chunk
    high = tl.maximum(tl.minimum(low + chunk, context_len), low)
    full = low + (high - low) // BLOCK_N * BLOCK_N
    table_ptr += run.to(tl.int64) * T
    for n0 in range(low, full, BLOCK_N):
        acc, top, total = _step(
            q, acc, top, total, k_ptr, v_ptr, table_ptr, n0, context_len, kv_head, scale,
            K, E, EP, P, BLOCK_N, False, PRECISION,
        )  # fmt: skip
    if full < high:
        acc, top, total = _step(
            q, acc, top, total, k_ptr, v_ptr, table_ptr, full, context_len, kv_head, scale,
            K, E, EP, P, BLOCK_N, True, PRECISION,
        )  # fmt: skip
    if SPLITS == 1:
        out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + at, out, mask=ok)
    else:
        # A split may lie behind the context: its sum is 0 and its weight e^-inf.
        safe = tl.where(total > 0, total, 1.0)
        part_ptr += split.to(tl.int64) * Q * H * E
        tl.store(part_ptr + at, acc / safe[:, None], mask=ok)
        log_sum = tl.where(total > 0, top + tl.log2(safe), float("-inf"))
        # A sum that is NaN stays so: neither comparison may hide it.
        log_sum = tl.where(total == total, log_sum, total)
        tl.store(log_sum_ptr + split * Q * H + row, log_sum, mask=valid)


@triton.jit(do_not_specialize=["Q"])
def combine_kernel(
    part_ptr, log_sum_ptr, out_ptr, tile_run_ptr, tile_first_ptr, starts_ptr, Q,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GP: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The splits' parts of BLOCK_R rows of a tile, added in their order."""
    GROUP: tl.constexpr = H // K
    t = tl.program_id(0)
    kv_head = tl.program_id(1)
    run = tl.load(tile_run_ptr + t)
    if run < 0:
        return
    m = tl.program_id(2) * BLOCK_R + tl.arange(0, BLOCK_R)
    e = tl.arange(0, EP)
    token = tl.load(tile_first_ptr + t) + m // GP
    valid = (token < tl.load(starts_ptr + run + 1)) & (m % GP < GROUP)
    row = token.to(tl.int64) * H + kv_head * GROUP + m % GP
    ok = valid[:, None] & (e < E)[None, :]
    at = row[:, None] * E + e[None, :]
    top = tl.full([BLOCK_R], float("-inf"), tl.float32)
    for s in tl.static_range(SPLITS):
        top = tl.maximum(top, tl.load(log_sum_ptr + s * Q * H + row, mask=valid, other=0.0))
    acc = tl.zeros([BLOCK_R, EP], tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    for s in tl.static_range(SPLITS):
        weight = tl.exp2(tl.load(log_sum_ptr + s * Q * H + row, mask=valid, other=0.0) - top)
        part = tl.load(part_ptr + tl.full([], s, tl.int64) * Q * H * E + at, mask=ok, other=0.0)
        acc += weight[:, None] * part
        total += weight
    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at, out, mask=ok)


@triton.jit
def _tma_step(
    q, acc, top, total, k_desc, v_desc, slot, left, kv_head, scale,
    E: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_N more positions; `left`: how many of them the context has (MASKED)."""
    k = k_desc.load([slot, kv_head * E])
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASKED:
        s = tl.where((tl.arange(0, BLOCK_N) < left)[None, :], s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1) * scale)
    p = tl.exp2(s * scale - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    v = v_desc.load([slot, kv_head * E])
    if MASKED:
        v = tl.where((tl.arange(0, BLOCK_N) < left)[:, None], v, 0.0)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_top, total


@triton.jit
def attention_tma_kernel(
    q_ptr, k_desc, v_desc, out_ptr,
    tile_run_ptr, tile_first_ptr, starts_ptr, context_ptr, slot_ptr, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GP: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """attention_kernel over contiguous slots, K and V by TMA, the scale inside the exponent."""
    GROUP: tl.constexpr = H // K
    tl.static_assert(E == EP, "TMA loads whole heads")
    t = tl.program_id(0)
    kv_head = tl.program_id(1)
    run = tl.load(tile_run_ptr + t)
    if run < 0:
        return
    end = tl.load(starts_ptr + run + 1)
    context_len = tl.load(context_ptr + run)
    slot = tl.load(slot_ptr + run)
    m = tl.arange(0, BLOCK_Q * GP)
    e = tl.arange(0, E)
    token = tl.load(tile_first_ptr + t) + m // GP
    valid = (token < end) & (m % GP < GROUP)
    row = token.to(tl.int64) * H + kv_head * GROUP + m % GP
    q = tl.load(q_ptr + row[:, None] * E + e[None, :], mask=valid[:, None], other=0.0)
    top = tl.full([BLOCK_Q * GP], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q * GP], tl.float32)
    acc = tl.zeros([BLOCK_Q * GP, E], tl.float32)
    full = context_len // BLOCK_N * BLOCK_N
    for n0 in range(0, full, BLOCK_N):
        acc, top, total = _tma_step(
            q, acc, top, total, k_desc, v_desc, slot + n0, BLOCK_N, kv_head, scale,
            E, BLOCK_N, False, PRECISION,
        )  # fmt: skip
    if full < context_len:
        acc, top, total = _tma_step(
            q, acc, top, total, k_desc, v_desc, slot + full, context_len - full, kv_head, scale,
            E, BLOCK_N, True, PRECISION,
        )  # fmt: skip
    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row[:, None] * E + e[None, :], out, mask=valid[:, None])
