"""The contract of a decoding strategy: which masked positions commit now, and to which token?

Shape letters: M masked positions of all sequences, packed, ordered by sequence and then by
position; V vocabulary; B sequences.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedPositions:
    """The masked positions of every active block in the batch, with what their sequences know.

    Everything that a decision may depend on is here, and all of it belongs to one sequence or one
    position:
    a strategy must treat the sequences apart.
    """

    logits_MV: Tensor
    """float32; -inf at the mask token, which can never be predicted."""
    sequence_M: Tensor
    """int64, the index in 0 .. B-1 of the position's sequence; ascending."""
    position_M: Tensor
    """int64 canvas positions."""
    num_masked_at_block_start_B: Tensor
    num_iterations_in_block_B: Tensor
    num_iterations_B: Tensor
    """int64; forwards of the sequence before this one."""
    seed_B: Tensor
    """int64."""
    temperature_B: Tensor
    """float32; 0 is greedy."""
    any_sampled: bool
    """Whether some temperature is above 0; known to the host."""


class Decision(NamedTuple):
    token_M: Tensor
    """int64, the token that the position commits to, if it does."""
    confidence_M: Tensor
    """float32, the model's probability of that token."""
    commit_M: Tensor
    """bool; at least one position of every sequence commits."""


class DecodingStrategy(Protocol):
    """A frozen dataclass whose fields are its settings; it keeps nothing between calls."""

    def decide(self, masked: MaskedPositions) -> Decision: ...


def rank_in_sequence(score_M: Tensor, masked: MaskedPositions) -> Tensor:
    """int64 [M]: 0 for the best score of each sequence, 1 for its next; ties go to the earlier
    position."""
    order_M = torch.argsort(score_M, descending=True, stable=True)
    order_M = order_M[torch.argsort(masked.sequence_M[order_M], stable=True)]
    # bincount would do, but on a GPU it reads its input's bounds back to the host.
    counts_B = torch.zeros_like(masked.seed_B)
    counts_B.index_add_(0, masked.sequence_M, torch.ones_like(masked.sequence_M))
    starts_B = counts_B.cumsum(0) - counts_B
    place_M = torch.arange(order_M.shape[0], device=order_M.device)
    rank_M = torch.empty_like(order_M)
    rank_M[order_M] = place_M - starts_B[masked.sequence_M]
    return rank_M
