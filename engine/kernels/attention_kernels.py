"""The kernels of engine/kernels/attention.py.

Shape letters as there; EP: the head size up to a power of two of at least 16; GP: the heads of a
group up to a power of two.
"""

import triton
import triton.language as tl


@triton.jit
def _add_step(
    q, k, v, acc, top, total, is_seen, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds some positions to a softmax: `top` is the highest score so far, `total` the sum of the
    weights and `acc` that of the weighted values, both relative to it.

    Every multiply-add is named and no other is fused, so that whoever adds the same steps in the
    same order gets the same bits.
    """
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASKED:
        s = tl.where(is_seen[None, :], s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1) * scale)
    p = tl.exp2(tl.fma(s, scale, -new_top[:, None]))
    shrink = tl.exp2(top - new_top)
    total = tl.fma(total, shrink, tl.sum(p, 1))
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_top, total


@triton.jit
def _add_split(acc, top, total, its_acc, its_top, its_total):
    """Adds a split's softmax, which was computed alone, to that of the splits before it."""
    new_top = tl.maximum(top, its_top)
    shrink, weight = tl.exp2(top - new_top), tl.exp2(its_top - new_top)
    acc = tl.fma(acc, shrink[:, None], its_acc * weight[:, None])
    return acc, new_top, tl.fma(total, shrink, its_total * weight)


@triton.jit
def _nothing(ROWS: tl.constexpr, EP: tl.constexpr):
    """The softmax over no position."""
    top = tl.full([ROWS], float("-inf"), tl.float32)
    return tl.zeros([ROWS, EP], tl.float32), top, tl.zeros([ROWS], tl.float32)


@triton.jit
def _mean(acc, total):
    """The weighted mean; never -0.0, the only sum that a first split's addition to 0.0 changes, so
    that a context of one split has the bits of a context without."""
    return acc / total[:, None] + 0.0


@triton.jit
def _begin_split(n0, positions, all_acc, all_top, all_total, acc, top, total):
    """Where another split begins at position n0, what stands in `acc` is all of the one before
    it."""
    if n0 > 0 and n0 & (positions - 1) == 0:
        all_acc, all_top, all_total = _add_split(all_acc, all_top, all_total, acc, top, total)
        acc, top, total = _nothing(acc.shape[0], acc.shape[1])
    return all_acc, all_top, all_total, acc, top, total


@triton.jit
def _split_positions(context_len, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr, STEPS: tl.constexpr):
    """Positions of each split of a context but the last: of SPLITS equal ones if STEPS is 0;
    otherwise STEPS steps, doubled until the context has at most SPLITS splits."""
    if STEPS == 0:
        return tl.cdiv(tl.cdiv(context_len, BLOCK_N), SPLITS) * BLOCK_N
    positions = tl.full([], STEPS * BLOCK_N, tl.int32)
    while positions * SPLITS < context_len:
        positions *= 2
    return positions


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
    return _add_step(q, k, v, acc, top, total, n < context_len, scale, MASKED, PRECISION)


@triton.jit
def _attend(
    q, k_ptr, v_ptr, table_ptr, low, high, context_len, positions, kv_head, scale,
    ROWS: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, ADDS_SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The softmax over the positions low .. high - 1; ADDS_SPLITS: of splits of so many
    `positions`, a power of two, each computed alone.

    The steps of all splits are one loop, so that the loads of a split are under way before the one
    in front of it is finished.
    """
    acc, top, total = _nothing(ROWS, EP)
    if ADDS_SPLITS:
        all_acc, all_top, all_total = _nothing(ROWS, EP)
    full = low + (high - low) // BLOCK_N * BLOCK_N
    for n0 in range(low, full, BLOCK_N):
        if ADDS_SPLITS:
            all_acc, all_top, all_total, acc, top, total = _begin_split(
                n0, positions, all_acc, all_top, all_total, acc, top, total
            )
        acc, top, total = _step(
            q, acc, top, total, k_ptr, v_ptr, table_ptr, n0, context_len, kv_head, scale,
            K, E, EP, P, BLOCK_N, False, PRECISION,
        )  # fmt: skip
    if full < high:
        if ADDS_SPLITS:
            all_acc, all_top, all_total, acc, top, total = _begin_split(
                full, positions, all_acc, all_top, all_total, acc, top, total
            )
        acc, top, total = _step(
            q, acc, top, total, k_ptr, v_ptr, table_ptr, full, context_len, kv_head, scale,
            K, E, EP, P, BLOCK_N, True, PRECISION,
        )  # fmt: skip
    if ADDS_SPLITS:
        acc, top, total = _add_split(all_acc, all_top, all_total, acc, top, total)
    return acc, top, total


@triton.jit(do_not_specialize=["T", "num_rows"])
def attention_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, acc_ptr, top_ptr, total_ptr,
    tile_run_ptr, tile_first_ptr, starts_ptr, context_ptr, table_ptr, T, num_rows, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, P: tl.constexpr,
    GP: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
    STEPS: tl.constexpr, SPREAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile, one key/value head; SPREAD: one split of the context, whose softmax is left for
    combine_kernel, otherwise all of them."""
    GROUP: tl.constexpr = H // K
    ROWS: tl.constexpr = BLOCK_Q * GP
    ADDS_SPLITS: tl.constexpr = SPLITS > 1 and not SPREAD
    tl.static_assert(STEPS > 0 or not ADDS_SPLITS, "equal splits have a program each")
    t = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    run = tl.load(tile_run_ptr + t)
    if run < 0:
        return
    end = tl.load(starts_ptr + run + 1)
    context_len = tl.load(context_ptr + run)
    low, high = 0, context_len
    positions = _split_positions(context_len, BLOCK_N, SPLITS, STEPS)
    if SPREAD:
        low = split * positions
        high = tl.minimum(low + positions, context_len)
        if low >= context_len:
            return
    m = tl.arange(0, ROWS)
    e = tl.arange(0, EP)
    token = tl.load(tile_first_ptr + t) + m // GP
    valid = (token < end) & (m % GP < GROUP)
    row = token.to(tl.int64) * H + kv_head * GROUP + m % GP
    at = row[:, None] * E + e[None, :]
    ok = valid[:, None] & (e < E)[None, :]
    q = tl.load(q_ptr + at, mask=ok, other=0.0)
    acc, top, total = _attend(
        q, k_ptr, v_ptr, table_ptr + run.to(tl.int64) * T, low, high, context_len, positions,
        kv_head, scale, ROWS, K, E, EP, P, BLOCK_N, ADDS_SPLITS, PRECISION,
    )  # fmt: skip
    if SPREAD:
        kept = (split * num_rows + (t * tl.num_programs(1) + kv_head) * ROWS + m).to(tl.int64)
        tl.store(acc_ptr + kept[:, None] * E + e[None, :], acc, mask=ok)
        tl.store(top_ptr + kept, top, mask=valid)
        tl.store(total_ptr + kept, total, mask=valid)
    else:
        tl.store(out_ptr + at, _mean(acc, total).to(out_ptr.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["num_rows"])
def combine_kernel(
    acc_ptr, top_ptr, total_ptr, out_ptr, tile_run_ptr, tile_first_ptr, starts_ptr, context_ptr,
    num_rows,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GP: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr, STEPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The splits of BLOCK_R rows of a tile, added in their order as attention_kernel adds them
    where it takes them all."""
    GROUP: tl.constexpr = H // K
    t = tl.program_id(0)
    kv_head = tl.program_id(1)
    run = tl.load(tile_run_ptr + t)
    if run < 0:
        return
    context_len = tl.load(context_ptr + run)
    num_splits = tl.cdiv(context_len, _split_positions(context_len, BLOCK_N, SPLITS, STEPS))
    m = tl.program_id(2) * BLOCK_R + tl.arange(0, BLOCK_R)
    e = tl.arange(0, EP)
    end = tl.load(starts_ptr + run + 1)
    token = tl.load(tile_first_ptr + t) + m // GP
    is_head = m % GP < GROUP
    row = token.to(tl.int64) * H + kv_head * GROUP + m % GP
    kept = ((t * tl.num_programs(1) + kv_head) * ROWS + m).to(tl.int64)
    acc, top, total = _nothing(BLOCK_R, EP)
    for s in tl.static_range(SPLITS):
        is_there = is_head & (token < tl.where(num_splits > s, end, 0))
        its_acc = tl.load(
            acc_ptr + kept[:, None] * E + e[None, :],
            mask=is_there[:, None] & (e < E)[None, :], other=0.0,
        )  # fmt: skip
        its_top = tl.load(top_ptr + kept, mask=is_there, other=0.0)
        its_total = tl.load(total_ptr + kept, mask=is_there, other=0.0)
        new_acc, new_top, new_total = _add_split(acc, top, total, its_acc, its_top, its_total)
        acc = tl.where(is_there[:, None], new_acc, acc)
        top = tl.where(is_there, new_top, top)
        total = tl.where(is_there, new_total, total)
        kept += num_rows
    out = _mean(acc, total).to(out_ptr.dtype.element_ty)
    ok = (is_head & (token < end))[:, None] & (e < E)[None, :]
    tl.store(out_ptr + row[:, None] * E + e[None, :], out, mask=ok)


@triton.jit
def _tma_step(
    q, acc, top, total, k_desc, v_desc, slot, left, kv_head, scale,
    E: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_N more positions; `left`: how many of them the context has (MASKED)."""
    is_seen = tl.arange(0, BLOCK_N) < left
    k = k_desc.load([slot, kv_head * E])
    v = v_desc.load([slot, kv_head * E])
    if MASKED:
        v = tl.where(is_seen[:, None], v, 0.0)
    return _add_step(q, k, v, acc, top, total, is_seen, scale, MASKED, PRECISION)


@triton.jit
def attention_tma_kernel(
    q_ptr, k_desc, v_desc, out_ptr,
    tile_run_ptr, tile_first_ptr, starts_ptr, context_ptr, slot_ptr, scale,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, GP: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """attention_kernel without splits over contiguous slots, K and V by TMA."""
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
    acc, top, total = _nothing(BLOCK_Q * GP, E)
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
    out = _mean(acc, total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row[:, None] * E + e[None, :], out, mask=valid[:, None])
