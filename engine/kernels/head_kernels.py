"""The kernels of engine/kernels/head.py. Shape letters as there."""

import triton
import triton.language as tl


@triton.jit
def _load_logits(logits_ptr, m, columns, V: tl.constexpr):
    """(the logits in float32, NaN and +inf as -inf; whether there was one). Words that are not
    there are -inf, as those are that are never predicted."""
    x = tl.load(logits_ptr + m * V + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
    is_broken = (x != x) | (x == float("inf"))
    return tl.where(is_broken, float("-inf"), x), tl.max(is_broken.to(tl.int32), 0) > 0


@triton.jit(do_not_specialize=["M"])
def reduce_kernel(
    logits_ptr, top_ptr, word_ptr, rest_ptr, weighted_ptr, M,
    V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile of words of one position. x may be -inf, and all of a tile too."""
    m = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1)
    columns = n * BLOCK + tl.arange(0, BLOCK)
    x, is_broken = _load_logits(logits_ptr, m, columns, V)
    top = tl.max(x, 0)
    place = tl.argmax(x, 0)
    d = tl.where(x > float("-inf"), x - top, -1e4)
    e = tl.where(tl.arange(0, BLOCK) == place, 0.0, tl.exp(d))
    at = n.to(tl.int64) * M + m
    tl.store(top_ptr + at, top)
    tl.store(word_ptr + at, n * BLOCK + place)
    tl.store(rest_ptr + at, tl.where(is_broken, float("nan"), tl.sum(e, 0)))
    tl.store(weighted_ptr + at, tl.sum(e * d, 0))


@triton.jit
def _log1p(x):
    """log(1 + x), precise for small x too (Kahan's correction of what 1 + x rounds off)."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit(do_not_specialize=["M", "num_tiles"])
def merge_kernel(
    top_ptr, word_ptr, rest_ptr, weighted_ptr, out_word_ptr, logit_ptr, others_ptr, score_ptr,
    entropy_ptr, out_top_ptr, out_rest_ptr, out_weighted_ptr, M, num_tiles,
    BM: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """BM positions, BLOCK_T tiles at a time; `full` sums count a tile's own largest word too."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    ok = rows < M
    top = tl.full([BM], float("-inf"), tl.float32)
    word = tl.zeros([BM], tl.int32)
    rest = tl.zeros([BM], tl.float32)
    weighted = tl.zeros([BM], tl.float32)
    for t0 in range(0, num_tiles, BLOCK_T):
        t = t0 + tl.arange(0, BLOCK_T)
        at = t.to(tl.int64)[:, None] * M + rows[None, :]
        here = (t[:, None] < num_tiles) & ok[None, :]
        tile_top = tl.load(top_ptr + at, mask=here, other=float("-inf"))
        tile_word = tl.load(word_ptr + at, mask=here, other=0)
        tile_rest = tl.load(rest_ptr + at, mask=here, other=0.0)
        tile_weighted = tl.load(weighted_ptr + at, mask=here, other=0.0)
        is_empty = tile_top == float("-inf")
        best = tl.max(tile_top, 0)
        is_best = tl.arange(0, BLOCK_T)[:, None] == tl.argmax(tile_top, 0)[None, :]
        best_word = tl.sum(tl.where(is_best, tile_word, 0), 0)
        new_top = tl.maximum(top, best)
        is_new = best > top
        # Tiles of this step, each against the new largest.
        d = tl.where(is_empty, -1e4, tile_top - new_top[None, :])
        shrink = tl.exp(d)
        tile_full = tile_rest + tl.where(is_empty, 0.0, 1.0)
        tile_counted = tl.where(is_best & is_new[None, :], tile_rest, tile_full)
        # What was gathered before.
        was_empty = top == float("-inf")
        d_old = tl.where(was_empty, -1e4, top - new_top)
        shrink_old = tl.exp(d_old)
        full = rest + tl.where(was_empty, 0.0, 1.0)
        counted = tl.where(is_new, full, rest)
        weighted = shrink_old * (weighted + d_old * full)
        weighted += tl.sum(shrink * (tile_weighted + d * tile_full), 0)
        rest = shrink_old * counted + tl.sum(shrink * tile_counted, 0)
        word = tl.where(is_new, best_word, word)
        top = new_top
    # 0, or NaN if a logit of the position was.
    poison = rest * 0.0
    tl.store(out_word_ptr + rows, word, mask=ok)
    tl.store(logit_ptr + rows, top + poison, mask=ok)
    tl.store(others_ptr + rows, top + tl.log(rest), mask=ok)
    tl.store(score_ptr + rows, top + poison, mask=ok)
    tl.store(entropy_ptr + rows, _log1p(rest) - weighted / (1.0 + rest), mask=ok)
    tl.store(out_top_ptr + rows, top, mask=ok)
    tl.store(out_rest_ptr + rows, rest, mask=ok)
    tl.store(out_weighted_ptr + rows, weighted + poison, mask=ok)


@triton.jit
def _mix(x):
    """The splitmix64 finaliser (Steele, Lea and Flood, 2014) on int64, whose products wrap."""
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))


@triton.jit
def gumbel(key, words):
    """Noise.gumbel of engine/decoding/noise.py: from 52 bits of the hash, in float64."""
    bits = (_mix(key ^ words) >> 12) & (2**52 - 1)
    uniform = (bits.to(tl.float64) + 0.5) * 2.0**-52
    return -tl.log(-tl.log(uniform)).to(tl.float32)


@triton.jit(do_not_specialize=["M", "first_word"])
def noisy_kernel(
    logits_ptr, key_ptr, temperature_ptr, score_ptr, word_ptr, logit_ptr, M, first_word,
    V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The best noisy score of one tile of words of one position; nothing where it is greedy."""
    m = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + m)
    if temperature > 0:
        n = tl.program_id(1)
        columns = n * BLOCK + tl.arange(0, BLOCK)
        x, _ = _load_logits(logits_ptr, m, columns, V)
        noise = gumbel(tl.load(key_ptr + m), columns.to(tl.int64) + first_word)
        score = x + temperature * noise
        place = tl.argmax(score, 0)
        at = n.to(tl.int64) * M + m
        tl.store(score_ptr + at, tl.max(score, 0))
        tl.store(word_ptr + at, n * BLOCK + place)
        is_best = tl.arange(0, BLOCK) == place
        tl.store(logit_ptr + at, tl.max(tl.where(is_best, x, float("-inf")), 0))


@triton.jit(do_not_specialize=["M", "num_tiles"])
def merge_noisy_kernel(
    temperature_ptr, score_ptr, word_ptr, logit_ptr, out_word_ptr, out_logit_ptr, others_ptr,
    out_score_ptr, top_ptr, rest_ptr, M, num_tiles, TP: tl.constexpr,
):  # fmt: skip
    """One position: the best tile. The log-sum-exp of the others follows from the sums over all but
    the largest logit; TP: the tiles up to a power of two."""
    m = tl.program_id(0).to(tl.int64)
    if tl.load(temperature_ptr + m) > 0:
        t = tl.arange(0, TP)
        at = t.to(tl.int64) * M + m
        score = tl.load(score_ptr + at, mask=t < num_tiles, other=float("-inf"))
        is_best = t == tl.argmax(score, 0)
        word = tl.sum(tl.where(is_best, tl.load(word_ptr + at, mask=t < num_tiles, other=0), 0), 0)
        logit = tl.load(logit_ptr + at, mask=t < num_tiles, other=float("-inf"))
        logit = tl.max(tl.where(is_best, logit, float("-inf")), 0)
        top = tl.load(top_ptr + m)
        rest = tl.load(rest_ptr + m)
        poison = rest * 0.0
        # The largest word itself: `rest` leaves it out. Another: all of `rest` but it, and 1.
        is_top = word == tl.load(out_word_ptr + m)
        without = 1.0 + tl.maximum(rest - tl.exp(logit - top), 0.0)
        others = top + tl.log(tl.where(is_top, rest, without))
        tl.store(out_word_ptr + m, word)
        tl.store(out_logit_ptr + m, logit + poison)
        tl.store(others_ptr + m, others + poison)
        tl.store(out_score_ptr + m, tl.max(score, 0) + poison)
