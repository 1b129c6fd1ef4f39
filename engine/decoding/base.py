"""The contract of a decoding strategy: which asked positions commit now, and to which token?

    propose: logits of some positions -> what each of them would commit to, and how well it stands
    choose:  the proposals of all positions -> which of them commit

`propose` sees each position alone and may be called on any piece of the batch, so that logits never
need to exist for all of it at once; `choose` compares the positions of a sequence. Shape letters as
in engine/decoding/positions.py.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions, Proposals
from engine.decoding.propose import propose


class StateField(NamedTuple):
    width: int
    dtype: torch.dtype


class DecodingStrategy:
    """Base of all strategies: a frozen dataclass whose fields are its settings. It keeps nothing
    between calls; what must be kept goes through `state`."""

    __slots__ = ()

    edits: ClassVar[bool] = False
    """Whether committed tokens of the active block are asked about too."""

    @property
    def max_post_iterations(self) -> int:
        """How many forwards a block may take after its last mask is gone; it is left as soon as one
        of them changes nothing."""
        return 0

    def state_fields(self, vocab_size: int, block_length: int) -> dict[str, StateField]:
        """What is kept of each position from forward to forward while its block is active."""
        return {}

    def propose(self, asked: AskedPositions, logits: Logits) -> Proposals:
        """The same on every rank of a tensor-parallel group: from what `logits` answers, not from
        the words that this rank happens to have."""
        return propose(asked, logits)

    def choose(self, asked: AskedPositions, proposals: Proposals) -> Tensor:
        """bool [M]; at least one masked position of every sequence that has one."""
        raise NotImplementedError


def check_probability(field: str, value: float) -> None:
    """Raises: ValueError: `value` is no probability above 0."""
    if not 0 < value <= 1:
        raise ValueError(f"decoding.{field}={value}: give a probability above 0 and at most 1")
