"""What a decoding strategy decides from, and what it answers.

Shape letters: M asked positions of all sequences, packed, ordered by sequence and then by position;
B sequences; W whatever a strategy keeps of a position.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPositions:
    """The asked positions of every active block in the batch, with what their sequences know.

    Everything that a decision may depend on is here, and all of it belongs to one sequence or one
    position: a strategy must treat the sequences apart.
    """

    sequence_M: Tensor
    """int64, the index in 0 .. B-1 of the position's sequence; ascending."""
    position_M: Tensor
    """int64 canvas positions."""
    token_M: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """int64, what the canvas holds now."""
    is_masked_M: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    """bool; true everywhere, but for a strategy that edits."""
    num_masked_at_block_start_B: Tensor
    num_iterations_in_block_B: Tensor
    num_iterations_B: Tensor
    """int64; decoding forwards of the sequence before this one."""
    seed_B: Tensor
    """int64."""
    temperature_B: Tensor
    """float32; 0 is greedy."""
    least_threshold_B: Tensor | None = None
    """float32; soft iteration allows no lower confidence threshold yet."""
    any_sampled: bool
    """Whether some temperature is above 0; known to the host."""
    longest: int
    """The most positions of one sequence; known to the host."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """[M, W] each: what the strategy last kept of each position in this block, at first zeros."""

    def rows(self, first: int, end: int) -> "AskedPositions":
        """The same for a piece of M."""
        per_position = ("sequence_M", "position_M", "token_M", "is_masked_M")
        return replace(
            self,
            **{name: getattr(self, name)[first:end] for name in per_position},
            state={name: rows[first:end] for name, rows in self.state.items()},
        )

    def of_sequence(self, value_B: Tensor) -> Tensor:
        """A sequence's value at each of its positions."""
        return value_B[self.sequence_M]

    def at_least(self, threshold: float) -> Tensor | float:
        """`threshold`, or what soft iteration asks for where that is more."""
        if self.least_threshold_B is None:
            return threshold
        return self.of_sequence(self.least_threshold_B).clamp(min=threshold)


class Proposals(NamedTuple):
    token_M: Tensor
    """int64, the token that the position commits to, if it does."""
    log_odds_M: Tensor
    """float32, log(c / (1 - c)) of the confidence c. Rank by this: it orders positions as c does,
    but where a sure model's c rounds to 1 for many positions at once, and rounding would choose
    among them, the log odds still differ."""
    confidence_M: Tensor
    """float32, the model's probability of that token, at temperature 1 also for a draw."""
    score_M: Tensor
    """float32, what the strategy itself goes by; the log odds, if nothing else."""
    state: Mapping[str, Tensor] = {}
    """[M, W] each: what the strategy is given at its next look at the position. All of it is new
    memory: nothing is kept before the commits stand."""


def joined(pieces: list[Proposals]) -> Proposals:
    if len(pieces) == 1:
        return pieces[0]
    names = pieces[0].state
    return Proposals(
        token_M=torch.cat([piece.token_M for piece in pieces]),
        log_odds_M=torch.cat([piece.log_odds_M for piece in pieces]),
        confidence_M=torch.cat([piece.confidence_M for piece in pieces]),
        score_M=torch.cat([piece.score_M for piece in pieces]),
        state={name: torch.cat([piece.state[name] for piece in pieces]) for name in names},
    )


def rank_within(group_M: Tensor, score_M: Tensor) -> Tensor:
    """int64 [M]: 0 for the best score of each group, 1 for its next; ties go to the earlier
    position. `group_M` is ascending."""
    order_M = torch.argsort(score_M, descending=True, stable=True)
    order_M = order_M[torch.argsort(group_M[order_M], stable=True)]
    starts_M = torch.searchsorted(group_M, group_M)
    place_M = torch.arange(order_M.shape[0], device=order_M.device)
    rank_M = torch.empty_like(order_M)
    rank_M[order_M] = place_M - starts_M
    return rank_M


def rank_of(asked: AskedPositions, score_M: Tensor) -> Tensor:
    """int64 [M]: the place of each masked position in its sequence; those not masked come last."""
    return rank_within(asked.sequence_M, score_M.where(asked.is_masked_M, -torch.inf))


def fails_before(asked: AskedPositions, rank_M: Tensor, fails_M: Tensor) -> Tensor:
    """bool [M]: whether the position, or one of a better rank in its sequence, fails."""
    first_B = torch.full_like(asked.seed_B, torch.iinfo(torch.int64).max)
    failing_M = rank_M.where(fails_M, torch.iinfo(torch.int64).max)
    first_B.scatter_reduce_(0, asked.sequence_M, failing_M, "amin")
    return rank_M >= asked.of_sequence(first_B)
