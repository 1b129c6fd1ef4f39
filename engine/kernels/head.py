"""What a decoding strategy asks of the logits, in one pass and without a float32 copy of them: the
best word, its logit, the log-sum-exp of the others and the entropy. What Logits.best and
Logits.entropy of engine/decoding/logits.py answer for this rank's words.

For each tile of words one kernel finds the largest logit, its word, and of the others sum e^d and
sum d e^d, with d the distance from the largest; a second one merges the tiles. The largest word is
left out of the sums, so that log odds and entropy stay precise where it has nearly all the
probability. Positions that are sampled then get the word with the highest noisy score from two more
kernels, which read and write nothing of the other positions: a position's bits do not depend on
whether its neighbours are sampled.

Shape letters: M requested positions, V this rank's words, T tiles of words.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from engine.kernels.common import FUSES, power_of_two
from engine.kernels.head_kernels import (
    merge_kernel,
    merge_noisy_kernel,
    noisy_kernel,
    reduce_kernel,
)

TILE_OF_WORDS = 8192
TILE_OF_NOISY_WORDS = 4096


class Words(NamedTuple):
    """The result for each position, over this rank's words; all float32 but the word. Where a logit
    is NaN or +inf, all of them but the word and top_M are NaN."""

    word_M: Tensor
    """int32: index among this rank's words of the best score. Of equal scores, the lower word."""
    logit_M: Tensor
    """Its logit, without noise."""
    others_M: Tensor
    """log-sum-exp of the logits of all other words."""
    score_M: Tensor
    """Its score: the logit, plus temperature x noise where the position is sampled."""
    entropy_M: Tensor
    """In nats, of softmax(logits)."""
    top_M: Tensor
    """The largest logit; with the next two, the parts from which ranks merge their entropy."""
    rest_M: Tensor
    """sum e^d over all words but one with the largest logit, d the distance from it."""
    weighted_M: Tensor
    """sum d e^d."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise of engine/decoding/noise.py: the Gumbel noise of a hash of (key, word)."""

    key_M: Tensor
    """int64: hash of (seed, count of decoding forwards, position)."""
    temperature_M: Tensor
    """float32; 0: the position is greedy and gets no noise."""
    first_word: int = 0
    """The word of this rank's first logit."""


def reduce(logits_MV: Tensor, noise: Noise | None = None) -> Words:
    """Logits in any float dtype, contiguous; -inf at a word that is never predicted. Bits of a
    position do not depend on M."""
    assert logits_MV.is_contiguous(), "logits are read row by row"
    M, V = logits_MV.shape
    block = min(power_of_two(V), TILE_OF_WORDS)
    num_tiles = -(-V // block)

    def floats(*shape: int) -> Tensor:
        return logits_MV.new_empty(shape, dtype=torch.float32)

    parts = (
        floats(num_tiles, M), logits_MV.new_empty((num_tiles, M), dtype=torch.int32),
        floats(num_tiles, M), floats(num_tiles, M),
    )  # fmt: skip
    words = Words(logits_MV.new_empty(M, dtype=torch.int32), *(floats(M) for _ in range(7)))
    reduce_kernel[(M, num_tiles)](
        logits_MV, *parts, M, V=V, BLOCK=block, num_warps=8, enable_fp_fusion=FUSES
    )
    merge_kernel[(-(-M // 4),)](
        *parts, *words, M, num_tiles, BM=4, BLOCK_T=min(power_of_two(num_tiles), 128), num_warps=4,
        enable_fp_fusion=FUSES,
    )  # fmt: skip
    if noise is not None:
        _sample(logits_MV, noise, words)
    return words


def _sample(logits_MV: Tensor, noise: Noise, words: Words) -> None:
    """Replaces the best word, its logit, the others and the score of the sampled positions."""
    M, V = logits_MV.shape
    block = min(power_of_two(V), TILE_OF_NOISY_WORDS)
    num_tiles = -(-V // block)
    score_TM, logit_TM = (
        logits_MV.new_empty((num_tiles, M), dtype=torch.float32) for _ in range(2)
    )
    word_TM = logits_MV.new_empty((num_tiles, M), dtype=torch.int32)
    # Without fused multiply-adds: the score is to round as torch's product and sum do.
    noisy_kernel[(M, num_tiles)](
        logits_MV, noise.key_M, noise.temperature_M, score_TM, word_TM, logit_TM, M,
        noise.first_word, V=V, BLOCK=block, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    merge_noisy_kernel[(M,)](
        noise.temperature_M, score_TM, word_TM, logit_TM, words.word_M, words.logit_M,
        words.others_M, words.score_M, words.top_M, words.rest_M, M, num_tiles,
        TP=power_of_two(num_tiles), num_warps=1, enable_fp_fusion=FUSES,
    )  # fmt: skip


def reduce_reference(logits_MV: Tensor, noise_MV: Tensor | float = 0.0) -> Words:
    """In float32; `noise_MV`: temperature x noise."""
    wide_MV = logits_MV.float()
    scores_MV = wide_MV + noise_MV
    word_M1 = scores_MV.argmax(dim=-1, keepdim=True)
    top_M1, place_M1 = wide_MV.max(dim=-1, keepdim=True)
    d_MV = (wide_MV - top_M1).scatter(1, place_M1, -torch.inf)
    rest_M, weighted_M = d_MV.exp().sum(-1), (d_MV.exp() * d_MV.clamp(min=-1e4)).sum(-1)
    words = Words(
        word_M=word_M1[:, 0].int(),
        logit_M=wide_MV.gather(1, word_M1)[:, 0],
        others_M=wide_MV.scatter(1, word_M1, -torch.inf).logsumexp(dim=-1),
        score_M=scores_MV.gather(1, word_M1)[:, 0],
        entropy_M=torch.log1p(rest_M) - weighted_M / (1 + rest_M),
        top_M=top_M1[:, 0],
        rest_M=rest_M,
        weighted_M=weighted_M,
    )
    is_broken_M = (wide_MV.isnan() | wide_MV.isposinf()).any(-1)
    keeps = ("word_M", "top_M")
    return Words(**{
        name: x if name in keeps else x.masked_fill(is_broken_M, torch.nan)
        for name, x in words._asdict().items()
    })  # fmt: skip
