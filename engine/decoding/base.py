"""The contract of a decoding strategy, which says which requested positions commit to which tokens.

    propose: logits of some positions -> the token that each would commit to, and its score
    choose:  the proposals of all positions -> which of them commit

`propose` looks at each position separately and may be called on any piece of the batch, so that the
logits of the whole batch never exist at once. `choose` compares the positions of a sequence.

Shape letters as in engine/decoding/positions.py.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.propose import propose
from engine.errors import UserError
from engine.model.authors import Opening


class StateField(NamedTuple):
    """A field of the state that is kept for a position: `width` values of one dtype."""

    width: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class DecodingStrategy:
    """Base of all strategies: a frozen dataclass whose fields are its settings.

    A strategy object keeps nothing between calls. What it must remember of a position is returned
    as `Proposals.state` and comes back as `AskedPositions.state` in the next forward.

    `propose` and `choose` may be captured in a graph (engine/graphs.py). So they read no tensor on
    the host, and no shape in them depends on values: no `.item()`, no mask as an index.
    """

    suppress_eos: str | None = field(default=None, kw_only=True)
    """Holds EOS back, as behind LLaDA's published scores. `logits`: the model's EOS is never
    predicted, its end of turn still is. `confidence`: where EOS or end of turn is predicted, it
    commits only when nothing else of the block is left. `softmax`: the same, and no confidence
    counts them, as in LLaDA's code. null: nothing is held back."""
    edits: ClassVar[bool] = False
    """Whether the strategy may change committed tokens of the active block; their positions are
    then requested too."""

    @property
    def reads_whole_logits(self) -> bool:
        """Whether `propose` asks the logits for more than `best`, `entropy` and `at`: memory is set
        aside for copies of all of them."""
        return False

    @property
    def may_commit_nothing(self) -> bool:
        """Whether a forward may commit no position of a sequence that has masked ones, by the
        strategy's schedule; it must finish every block all the same."""
        return False

    @property
    def opening(self) -> Opening | None:
        """The rule for forwards that open a block which belongs to the strategy
        (EngineConfig.opening); None: that of the model's authors."""
        return None

    @property
    def max_post_iterations(self) -> int:
        """How many forwards a block may take after its last mask is gone, at most. The block ends
        earlier if such a forward changes nothing."""
        return 0

    def state_fields(self, vocab_size: int, block_length: int) -> dict[str, StateField]:
        """The state that is kept for each position while its block is active, by name."""
        return {}

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        """What each position would commit to.

        The result must be the same on every rank of a tensor-parallel group. So use the methods of
        `logits`, which cover the whole vocabulary, and not only this rank's words.
        """
        return propose(asked, logits)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        """Which positions commit, bool [M]: at least one masked position of every sequence that has
        one, unless the strategy says `may_commit_nothing`."""
        raise NotImplementedError


def check_probability(field: str, value: float) -> None:
    """
    Raises:
        UserError: `value` is not a probability above 0.
    """
    if not 0 < value <= 1:
        raise UserError(f"decoding.{field}={value}: give a probability above 0 and at most 1")
