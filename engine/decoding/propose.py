"""The token that each masked position would commit to, and how sure the model is of it.

Sampling draws from softmax(logits / temperature) by the Gumbel maximum. Its noise is a hash of
(seed, the sequence's count of forwards, position, word): no generator has a state, so a draw
cannot depend on the batch, the worker or a restart. Shape letters as in engine/decoding/base.py.
"""

import torch
from torch import Tensor

from engine.decoding.base import MaskedPositions


def propose(masked: MaskedPositions) -> tuple[Tensor, Tensor]:
    """(token int64 [M], confidence float32 [M]): the confidence is softmax(logits) at the token."""
    scores_MV = masked.logits_MV
    if masked.any_sampled:
        temperature_M1 = masked.temperature_B[masked.sequence_M, None]
        scores_MV = torch.where(
            temperature_M1 > 0, scores_MV + temperature_M1 * gumbel_noise(masked), scores_MV
        )
    token_M = scores_MV.argmax(dim=-1)
    chosen_M = masked.logits_MV.gather(1, token_M[:, None])[:, 0]
    return token_M, torch.exp(chosen_M - masked.logits_MV.logsumexp(dim=-1))


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
