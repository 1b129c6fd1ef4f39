"""The token that each masked position would commit to, and how sure the model is of it.

Sampling draws from softmax(logits / temperature) by the Gumbel maximum. Its noise is a hash of
(seed, the sequence's count of forwards, position, word): no generator has a state, so a draw
cannot depend on the batch, the worker or a restart. Shape letters as in engine/decoding/base.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.decoding.base import MaskedPositions


class Proposals(NamedTuple):
    token_M: Tensor
    """int64."""
    log_odds_M: Tensor
    """float32, log(c / (1 - c)) of the confidence c. Rank by this: it orders positions as c does,
    but where a sure model's c rounds to 1 for many positions at once, and rounding would choose
    among them, the log odds still differ."""
    confidence_M: Tensor
    """float32, softmax(logits) at the token, at temperature 1 also for a draw."""


def propose(masked: MaskedPositions) -> Proposals:
    scores_MV = masked.logits_MV
    if masked.any_sampled:
        temperature_M1 = masked.temperature_B[masked.sequence_M, None]
        scores_MV = torch.where(
            temperature_M1 > 0, scores_MV + temperature_M1 * gumbel_noise(masked), scores_MV
        )
    token_M1 = scores_MV.argmax(dim=-1, keepdim=True)
    chosen_M = masked.logits_MV.gather(1, token_M1)[:, 0]
    others_M = masked.logits_MV.scatter(1, token_M1, -torch.inf).logsumexp(dim=-1)
    log_odds_M = chosen_M - others_M
    return Proposals(token_M1[:, 0], log_odds_M, torch.sigmoid(log_odds_M))


def gumbel_noise(masked: MaskedPositions) -> Tensor:
    """Standard Gumbel noise, float32 [M, V]; computed in float64 so that its tail is not cut
    short."""
    sequence_M = masked.sequence_M
    key_M = _mix(masked.seed_B[sequence_M])
    key_M = _mix(key_M ^ masked.num_iterations_B[sequence_M])
    key_M = _mix(key_M ^ masked.position_M)
    words_V = torch.arange(masked.logits_MV.shape[1], device=sequence_M.device)
    bits_MV = _shift_right(_mix(key_M[:, None] ^ words_V), 12)
    uniform_MV = (bits_MV.double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform_MV)).float()


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea and Flood, 2014) on int64, whose products wrap."""
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ _shift_right(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift_right(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, which torch shifts arithmetically."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
