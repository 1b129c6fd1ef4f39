"""The input (AskedPositions) and output (Proposals) of a decoding strategy, and how positions rank.

Shape letters: M requested positions of all sequences, packed, ordered by sequence, then by
position; B sequences; W values that a strategy keeps for a position.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from engine.sampling import Filters

LAST = -1e30
"""The score and log odds of a position that commits only when nothing else of its block is left."""
_LOWEST = torch.finfo(torch.float32).min
_NO_TOKENS, _NO_FLAGS = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool)


class AskedPositions(NamedTuple):
    """The requested positions of every active block in the batch, and data of their sequences.

    This is everything that a decision may depend on. Each value belongs to one position or one
    sequence, and a strategy must decide for each sequence separately.
    """

    sequence_M: Tensor
    """int64, ascending: index 0 .. B-1 of the position's sequence."""
    position_M: Tensor
    """int64: canvas positions."""
    offset_M: Tensor
    """int64: positions within the active block, below `longest`."""
    num_masked_at_block_start_B: Tensor
    """int64: masked positions of the active block when it was entered."""
    num_iterations_in_block_B: Tensor
    """int64: decoding forwards in the active block before this one."""
    num_iterations_B: Tensor
    """int64: decoding forwards of the sequence before this one."""
    seed_B: Tensor
    """int64."""
    temperature_B: Tensor
    """float32; 0 is greedy."""
    any_sampled: bool
    """Whether any temperature is above 0. The host knows it without reading the device."""
    longest: int
    """No sequence has more requested positions. The same in every batch of an engine: its block
    length."""
    token_M: Tensor = _NO_TOKENS
    """int64: the tokens in the canvas now; empty unless `may_hold_tokens`."""
    is_masked_M: Tensor = _NO_FLAGS
    """bool: true everywhere unless `may_hold_tokens`."""
    may_hold_tokens: bool = True
    """Whether positions that are not masked may be requested, as by a strategy that edits. The same
    in every batch of an engine. If false, `is_masked_M` need not be looked at."""
    filters: Filters | None = None
    """None where no sequence's logits are seen through top_k, top_p or its temperature."""
    least_threshold_B: Tensor | None = None
    """float32: lower limit that soft iteration sets for confidence thresholds; None if it is
    off."""
    state: Mapping[str, Tensor] = {}
    """[M, W] each: the state that the strategy returned for the position in the forward before;
    zeros in the first forward of a block."""

    def rows(self, first: int, end: int) -> "AskedPositions":
        """The positions first .. end - 1 of M, with all sequences."""
        per_position = ("sequence_M", "position_M", "offset_M", "token_M", "is_masked_M")
        return self._replace(
            **{name: getattr(self, name)[first:end] for name in per_position},
            state={name: rows[first:end] for name, rows in self.state.items()},
        )

    def of_sequence(self, value_B: Tensor) -> Tensor:
        """Per-sequence values, repeated for each position: [M]."""
        return value_B.index_select(0, self.sequence_M)

    def at_least(self, threshold: float) -> Tensor | float:
        """`threshold`, raised to the limit of soft iteration where that is higher."""
        if self.least_threshold_B is None:
            return threshold
        return self.of_sequence(self.least_threshold_B).clamp(min=threshold)


class Proposals(NamedTuple):
    """What each requested position would commit to, and how good a commit that is."""

    token_M: Tensor
    """int64: the token that the position commits to, if it is chosen."""
    log_odds_M: Tensor
    """float32: log(c / (1 - c)) of the confidence c. Rank by this. It orders positions as c does,
    and still differs where the model is nearly certain and c rounds to 1 for many positions."""
    confidence_M: Tensor
    """float32: the model's probability of the token: at temperature 1 even if it was drawn at
    another, or as it was drawn (engine/sampling.py)."""
    score_M: Tensor
    """float32: the score that the strategy uses in `choose`; by default the log odds."""
    state: Mapping[str, Tensor] = {}
    """[M, W] each: the state to keep for the position until the next forward. It must be in new
    tensors, because the old state is overwritten only together with the commits."""


def joined(pieces: list[Proposals]) -> Proposals:
    """The proposals of consecutive pieces of M as one."""
    names = pieces[0].state
    return Proposals(
        token_M=torch.cat([piece.token_M for piece in pieces]),
        log_odds_M=torch.cat([piece.log_odds_M for piece in pieces]),
        confidence_M=torch.cat([piece.confidence_M for piece in pieces]),
        score_M=torch.cat([piece.score_M for piece in pieces]),
        state={name: torch.cat([piece.state[name] for piece in pieces]) for name in names},
    )


def is_last(score_M: Tensor) -> Tensor:
    """Whether the position commits only when nothing else is left, bool [M]."""
    return score_M <= LAST


def rank_within(group_M: Tensor, score_M: Tensor) -> Tensor:
    """Rank of each score within its group, int64 [M]: 0 for the best. Ties go to the earlier
    position. `group_M` is ascending."""
    order_M = torch.argsort(score_M, descending=True, stable=True)
    order_M = order_M[torch.argsort(group_M[order_M], stable=True)]
    return _inverse(order_M) - torch.searchsorted(group_M, group_M)


def _inverse(order_M: Tensor) -> Tensor:
    """The place of each position in an order."""
    place_M = torch.arange(order_M.shape[0], device=order_M.device)
    return torch.empty_like(order_M).scatter_(0, order_M, place_M)


def rank_of(asked: AskedPositions, score_M: Tensor) -> Tensor:
    """Rank of each position within its sequence, int64 [M]: 0 for the best score of the masked
    positions. Positions that are not masked rank last."""
    if asked.may_hold_tokens:
        score_M = score_M.where(asked.is_masked_M, -torch.inf)
    if asked.seed_B.shape[0] > 1:
        return rank_within(asked.sequence_M, score_M)
    return _inverse(torch.argsort(score_M, descending=True, stable=True))


def is_best(asked: AskedPositions, score_M: Tensor) -> Tensor:
    """Whether the position ranks first in its sequence, bool [M]: as rank_of(...) == 0, without a
    sort. A sequence with a score of NaN fails whatever this says of it."""
    if asked.may_hold_tokens:
        score_M = score_M.where(asked.is_masked_M, -torch.inf)
    num_sequences, longest = asked.seed_B.shape[0], asked.longest
    if num_sequences == 1:
        return asked.offset_M == asked.offset_M.take(score_M.argmax())
    # The block of each sequence as a row, in which positions that are not requested rank last.
    # Positions that pad a batch share a row of their own.
    score_BL = score_M.new_full((num_sequences, longest), -torch.inf)
    cell_M = asked.offset_M.add(asked.sequence_M, alpha=longest)
    score_BL.view(-1).index_copy_(0, cell_M, score_M.clamp(min=_LOWEST))
    return asked.offset_M == asked.of_sequence(score_BL.argmax(dim=1))


def fails_before(asked: AskedPositions, rank_M: Tensor, fails_M: Tensor) -> Tensor:
    """Whether the position or any better-ranked one of its sequence fails, bool [M]."""
    first_B = torch.full_like(asked.seed_B, torch.iinfo(torch.int64).max)
    failing_M = rank_M.where(fails_M, torch.iinfo(torch.int64).max)
    first_B.scatter_reduce_(0, asked.sequence_M, failing_M, "amin")
    return rank_M >= asked.of_sequence(first_B)
