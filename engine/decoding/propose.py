"""The token that each asked position would commit to, and how sure the model is of it.

Sampling draws from softmax(logits / temperature) by the Gumbel maximum. Its noise is a hash of
(seed, the sequence's count of decoding forwards, position, word): no generator has a state, so a
draw cannot depend on the batch, the worker or a restart. Shape letters as in
engine/decoding/positions.py.
"""

import torch
from torch import Tensor

from engine.decoding.positions import AskedPositions, Proposals

NO_WORD = 2**63 - 1
"""Stands for the word where noise is wanted for a position as a whole."""


def propose(asked: AskedPositions, logits_MV: Tensor) -> Proposals:
    """A confidence is not a number where the logits are not finite, the mask's -inf apart."""
    scores_MV = logits_MV
    if asked.any_sampled:
        temperature_M1 = asked.of_sequence(asked.temperature_B)[:, None]
        noise_MV = gumbel_noise(asked, logits_MV.shape[1])
        scores_MV = torch.where(
            temperature_M1 > 0, scores_MV + temperature_M1 * noise_MV, scores_MV
        )
    token_M1 = scores_MV.argmax(dim=-1, keepdim=True)
    chosen_M = logits_MV.gather(1, token_M1)[:, 0]
    others_M = logits_MV.scatter(1, token_M1, -torch.inf).logsumexp(dim=-1)
    log_odds_M = chosen_M - others_M
    log_odds_M = log_odds_M.where(log_odds_M.isfinite(), torch.nan)
    return Proposals(token_M1[:, 0], log_odds_M, torch.sigmoid(log_odds_M), log_odds_M)


def entropy(logits_MV: Tensor) -> Tensor:
    """float32 [M], in nats; precise also where one word has nearly all the probability.

    With d the distance of each logit from the largest: H = log(sum e^d) - sum(d e^d) / sum e^d,
    and the largest itself adds nothing but the 1 in log1p.
    """
    top_M1, best_M1 = logits_MV.max(dim=-1, keepdim=True)
    d_MV = (logits_MV - top_M1).scatter(1, best_M1, -torch.inf)
    e_MV = d_MV.exp()
    others_M = e_MV.sum(-1)
    weighted_M = (e_MV * d_MV.clamp(min=-1e4)).sum(-1)
    return torch.log1p(others_M) - weighted_M / (1 + others_M)


def margin(logits_MV: Tensor) -> Tensor:
    """float32 [M], growing with p1 - p2, the distance of the two likeliest words: the negative
    logarithm of 1 - (p1 - p2), which does not round to the same number for all sure positions."""
    two_M2, best_M2 = logits_MV.topk(2, dim=-1)
    others_M = logits_MV.scatter(1, best_M2[:, :1], -torch.inf).logsumexp(-1)
    return logits_MV.logsumexp(-1) - torch.logaddexp(others_M, two_M2[:, 1])


def position_noise(asked: AskedPositions) -> Tensor:
    """float64 [M], evenly spread over 0 to 1: a hash of (seed, count of forwards, position)."""
    bits_M = _shift_right(_mix(_position_key(asked) ^ NO_WORD), 12)
    return bits_M.double() * 2.0**-52


def gumbel_noise(asked: AskedPositions, num_words: int) -> Tensor:
    """Standard Gumbel noise, float32 [M, V]; computed in float64 so that its tail is not cut
    short."""
    words_V = torch.arange(num_words, device=asked.sequence_M.device)
    bits_MV = _shift_right(_mix(_position_key(asked)[:, None] ^ words_V), 12)
    uniform_MV = (bits_MV.double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform_MV)).float()


def _position_key(asked: AskedPositions) -> Tensor:
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
    """Logical shift of int64, which torch shifts arithmetically."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
