"""Reduces each position's logits on one rank to a few numbers: in plain torch.

This defines the operations that engine/decoding/logits.py merges over the ranks of a group, and is
the CPU path; engine/decoding/triton_reduction.py reads the logits once for all of it.

Shape letters as in engine/decoding/logits.py.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.decoding.noise import Noise


class EntropyParts(NamedTuple):
    """With d the difference of each logit to the largest: sums over all words but the largest."""

    top_M: Tensor
    """float32: the largest logit."""
    others_M: Tensor
    """float32: sum of e^d."""
    weighted_M: Tensor
    """float32: sum of d e^d."""


class Reduced(NamedTuple):
    """The word with the highest score at each position."""

    place_M: Tensor
    """int64: index of the word on this rank. Ties go to the lower word, and NaN counts as the
    highest score."""
    score_M: Tensor
    """float32: its logit, plus its noise where the position has a temperature."""
    logit_M: Tensor
    """float32"""
    others_M: Tensor
    """float32: logsumexp of the logits of all other words on this rank."""
    entropy: EntropyParts | None
    """None where it would take another pass over the logits."""


class Reduction(Protocol):
    """One way to reduce. `local_MU` are the logits of this rank's words; -inf at the mask token.
    Every result of a position depends on that position alone."""

    def best(self, local_MU: Tensor, noise: Noise | None, words: range) -> Reduced:
        """`words`: this rank's run of the vocabulary, which the noise is hashed from."""

    def entropy(self, local_MU: Tensor) -> EntropyParts:
        """The parts of the entropy on this rank."""

    def top_k(self, local_MU: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` highest logits of each position in descending order, [M, count] in the dtype
        of the logits, and their words' indices on this rank, int64."""

    def mean_rows(self, weights_MU: Tensor, rows_UD: Tensor) -> Tensor:
        """weights @ rows, [M, D]."""

    def mean_rows_of_each(self, weights_MW: Tensor, rows_MWD: Tensor) -> Tensor:
        """weights @ rows, where each position has rows of its own: [M, D]."""


class TorchReduction:
    """Plain torch, on float32 logits. Ties in `top_k` are broken by torch.topk."""

    def best(self, local_MU: Tensor, noise: Noise | None, words: range) -> Reduced:
        scores_MU = local_MU
        if noise is not None:
            temperature_M1 = noise.temperature_M[:, None]
            noisy_MU = local_MU + temperature_M1 * noise.gumbel(words)
            scores_MU = torch.where(temperature_M1 > 0, noisy_MU, local_MU)
        score_M, place_M = self._highest(scores_MU)
        place_M1 = place_M[:, None]
        logit_M = score_M if noise is None else local_MU.gather(1, place_M1)[:, 0]
        others_M = local_MU.scatter(1, place_M1, -torch.inf).logsumexp(dim=-1)
        return Reduced(place_M, score_M, logit_M, others_M, None)

    def _highest(self, scores_MU: Tensor) -> tuple[Tensor, Tensor]:
        """The highest score of each position, and its index."""
        score_M, place_M = scores_MU.max(dim=-1)
        return score_M, place_M

    def entropy(self, local_MU: Tensor) -> EntropyParts:
        top_M1, place_M1 = local_MU.max(dim=-1, keepdim=True)
        d_MU = (local_MU - top_M1).scatter(1, place_M1, -torch.inf)
        e_MU = d_MU.exp()
        others_M = e_MU.sum(-1)
        return EntropyParts(top_M1[:, 0], others_M, (e_MU * d_MU.clamp(min=-1e4)).sum(-1))

    def top_k(self, local_MU: Tensor, count: int) -> tuple[Tensor, Tensor]:
        logit_MW, place_MW = local_MU.topk(count, dim=-1)
        return logit_MW, place_MW

    def mean_rows(self, weights_MU: Tensor, rows_UD: Tensor) -> Tensor:
        return weights_MU @ rows_UD

    def mean_rows_of_each(self, weights_MW: Tensor, rows_MWD: Tensor) -> Tensor:
        return torch.einsum("mw,mwd->md", weights_MW, rows_MWD)


class CpuReduction(TorchReduction):
    """The same for a CPU, where torch's `max` with an index compares one score after the other, and
    numpy's several at a time."""

    def _highest(self, scores_MU: Tensor) -> tuple[Tensor, Tensor]:
        place_M = torch.from_numpy(scores_MU.numpy().argmax(axis=-1))
        return scores_MU.gather(1, place_M[:, None])[:, 0], place_M


TORCH = TorchReduction()
CPU = CpuReduction()
