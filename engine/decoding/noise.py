"""The noise that words and positions are drawn with: a hash of (seed, the sequence's count of
decoding forwards, position, word).

There is no generator with a state, so a draw cannot depend on the batch, the worker, the rank or a
restart.

Shape letters as in engine/decoding/positions.py and logits.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.decoding.positions import AskedPositions
from engine.sampling import View

NO_WORD = 2**63 - 1
"""Takes the place of the word in the hash when a position as a whole needs noise."""


class Noise(NamedTuple):
    """What the noise of each position follows from: a word's score is its logit plus the
    temperature times the noise of the word."""

    key_M: Tensor
    """int64: hash of (seed, count of decoding forwards, position)."""
    temperature_M: Tensor
    """float32; 0 draws without noise: the likeliest word."""

    def gumbel(self, words: range) -> Tensor:
        """Standard Gumbel noise for a run of the vocabulary, float32 [M, U]. Computed in float64,
        so that the tail is not cut off."""
        return gumbel(self.key_M, words)


def gumbel(key_M: Tensor, words: range) -> Tensor:
    """See Noise.gumbel: the noise that follows from hashes, int64 [M]."""
    words_U = torch.arange(words.start, words.stop, device=key_M.device)
    bits_MU = _shift_right(_mix(key_M[:, None] ^ words_U), 12)
    uniform_MU = (bits_MU.double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform_MU)).float()


def noise_of(asked: AskedPositions) -> Noise | None:
    """The noise of every position; None if all of them draw without."""
    if not asked.any_sampled:
        return None
    temperature_B = asked.temperature_B
    if asked.filters is not None:
        # These logits are divided by their temperature already.
        is_filtered_B = asked.filters.view_B == View.FILTERED
        temperature_B = torch.where(is_filtered_B & (temperature_B > 0), 1.0, temperature_B)
    return Noise(_key(asked), asked.of_sequence(temperature_B))


def position_noise(asked: AskedPositions) -> Tensor:
    """Uniform noise in [0, 1), float64 [M]: a hash of (seed, count of decoding forwards,
    position)."""
    bits_M = _shift_right(_mix(_key(asked) ^ NO_WORD), 12)
    return bits_M.double() * 2.0**-52


def position_gumbel(asked: AskedPositions) -> Tensor:
    """Standard Gumbel noise from the same hash, float64 [M]."""
    return -torch.log(-torch.log(position_noise(asked) + 2.0**-53))


def _key(asked: AskedPositions) -> Tensor:
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
