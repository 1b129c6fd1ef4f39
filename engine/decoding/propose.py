"""Proposes the token that each requested position would commit to, with the model's confidence.

Sampling draws from softmax(logits / temperature) with the Gumbel-max trick. The noise is a hash of
(seed, the sequence's count of decoding forwards, position, word). There is no generator with a
state, so a draw cannot depend on the batch, the worker, the rank or a restart.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals

NO_WORD = 2**63 - 1
"""Takes the place of the word in the hash when a position as a whole needs noise."""


def propose(asked: AskedPositions, logits: Logits) -> Proposals:
    """Propose the likeliest word, or a drawn one where the temperature is above 0.

    The confidence is NaN if a logit of the position is NaN or +inf.
    """
    scores_MU = logits.local_MU
    if asked.any_sampled:
        temperature_M1 = asked.of_sequence(asked.temperature_B)[:, None]
        noise_MU = gumbel_noise(asked, logits.words)
        scores_MU = torch.where(
            temperature_M1 > 0, scores_MU + temperature_M1 * noise_MU, scores_MU
        )
    best = logits.best(scores_MU)
    log_odds_M = best.logit_M - best.others_M
    log_odds_M = log_odds_M + log_odds_M * 0  # NaN where it is not finite
    return Proposals(best.word_M, log_odds_M, torch.sigmoid(log_odds_M), log_odds_M)


def logsumexp(logits: Logits, proposals: Proposals) -> Tensor:
    """logsumexp over all words, float32 [M, 1]. It follows from the proposals, which have already
    summed over all words."""
    token_M1, log_odds_M1 = proposals.token_M[:, None], proposals.log_odds_M[:, None]
    return logits.at(token_M1) - F.logsigmoid(log_odds_M1)


def position_noise(asked: AskedPositions) -> Tensor:
    """Uniform noise in [0, 1), float64 [M]: a hash of (seed, count of decoding forwards,
    position)."""
    bits_M = _shift_right(_mix(_position_key(asked) ^ NO_WORD), 12)
    return bits_M.double() * 2.0**-52


def gumbel_noise(asked: AskedPositions, words: range) -> Tensor:
    """Standard Gumbel noise for a run of the vocabulary, float32 [M, U]. Computed in float64, so
    that the tail is not cut off."""
    words_U = torch.arange(words.start, words.stop, device=asked.sequence_M.device)
    bits_MU = _shift_right(_mix(_position_key(asked)[:, None] ^ words_U), 12)
    uniform_MU = (bits_MU.double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform_MU)).float()


def _position_key(asked: AskedPositions) -> Tensor:
    """Hash of (seed, count of decoding forwards, position), int64 [M]."""
    key_M = _mix(asked.of_sequence(asked.seed_B))
    key_M = _mix(key_M ^ asked.of_sequence(asked.num_iterations_B))
    return _mix(key_M ^ asked.position_M)


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea and Flood, 2014) on int64, whose products wrap."""
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ _shift_right(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift_right(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64; torch's `>>` is arithmetic."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
