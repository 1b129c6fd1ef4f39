"""Reduces each position's logits on one rank in one pass, by the Triton kernels.

Imports triton, so it is imported only by who has chosen the kernels.

Shape letters as in engine/decoding/logits.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.noise import Noise
from engine.decoding.reduction import EntropyParts, Reduced
from engine.kernels import head

FIXED_ROWS = 64
"""Rows of every product in `mean_rows`, if bits must not depend on their number."""


@dataclass(frozen=True, slots=True)
class TritonReduction:
    """The kernels of engine/kernels/head.py, on logits in any dtype."""

    batch_invariant: bool

    def best(self, local_MU: Tensor, noise: Noise | None, words: range) -> Reduced:
        drawn = None
        if noise is not None:
            drawn = head.Noise(
                key_M=noise.key_M, temperature_M=noise.temperature_M, first_word=words.start
            )
        found = head.reduce(local_MU, noise=drawn)
        parts = EntropyParts(found.top_M, found.rest_M, found.weighted_M)
        return Reduced(found.word_M.long(), found.score_M, found.logit_M, found.others_M, parts)

    def entropy(self, local_MU: Tensor) -> EntropyParts:
        found = head.reduce(local_MU)
        return EntropyParts(found.top_M, found.rest_M, found.weighted_M)

    def top_k(self, local_MU: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Ties go to the lower word. torch.topk breaks them by an algorithm that it chooses by the
        number of positions, and logits in bfloat16 often tie. So every word gets a key of its own:
        its logit's bits, in an order that integers have too, above its index from behind."""
        bits_MU = (local_MU.float() + 0.0).view(torch.int32)  # -0.0 ties with 0.0
        bits_MU = bits_MU ^ (bits_MU >> 31).bitwise_and_(0x7FFFFFFF)
        keys_MU = bits_MU.long()
        del bits_MU
        num_words = local_MU.shape[1]
        behind_U = torch.arange(num_words - 1, -1, -1, device=local_MU.device)
        keys_MU = keys_MU.bitwise_left_shift_(32).bitwise_or_(behind_U)
        key_MW = keys_MU.topk(count, dim=-1).values
        place_MW = num_words - 1 - (key_MW & 0xFFFFFFFF)
        return local_MU.gather(1, place_MW), place_MW

    def mean_rows(self, weights_MU: Tensor, rows_UD: Tensor) -> Tensor:
        """If bits must not depend on the number of positions: in products of the same shape. A
        product over the whole vocabulary is one that cuBLAS divides in many ways."""
        if not self.batch_invariant:
            return weights_MU @ rows_UD
        pieces = _pieces(weights_MU)
        return torch.cat([piece_NU @ rows_UD for piece_NU in pieces])[: weights_MU.shape[0]]

    def mean_rows_of_each(self, weights_MW: Tensor, rows_MWD: Tensor) -> Tensor:
        """As in `mean_rows`."""
        if not self.batch_invariant:
            return torch.bmm(weights_MW[:, None], rows_MWD)[:, 0]
        pieces = zip(_pieces(weights_MW), _pieces(rows_MWD), strict=True)
        means = [torch.bmm(weights[:, None], rows)[:, 0] for weights, rows in pieces]
        return torch.cat(means)[: weights_MW.shape[0]]


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Runs of FIXED_ROWS rows; the last one is filled up with zeros."""
    missing = -x.shape[0] % FIXED_ROWS
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)).split(FIXED_ROWS)
