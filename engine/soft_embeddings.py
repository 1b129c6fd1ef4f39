"""Keeps what soft iteration adds to the embeddings of masked positions, from forward to forward.

Shape letters as in engine/batch.py; also D hidden size.
"""

import torch
from torch import Tensor

from engine.decoding.base import StateField
from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions
from engine.device_batch import Batch
from engine.runner import ModelRunner
from engine.soft import SoftIteration
from engine.state import SlotState

SOFT = "soft_embedding"
"""The field of the slot state: the expected embedding with the weight of the forward that it
enters."""


class SoftEmbeddings:
    """One embedding for each slot: that of the last forward that softened the position."""

    def __init__(self, soft: SoftIteration, runner: ModelRunner, num_slots: int) -> None:
        self._soft = soft
        self._runner = runner
        field = StateField(runner.model.config.hidden_size, runner.dtype)
        self._state = SlotState({SOFT: field}, num_slots, runner.device)

    def added(self, batch: Batch, asked: AskedPositions) -> Tensor:
        """What is added to the embeddings of the requested positions (zeros where one is not
        masked) and, behind them, of the softened ones: [M + X, D]."""
        count_B = asked.num_iterations_in_block_B
        if self._soft.softens_canvas:
            # A sequence's first forward is of its whole canvas, so it softens every mask.
            count_B = asked.num_iterations_B
        is_first_B = count_B == 0
        added_MD = self._state.rows(batch.slots_M, asked.of_sequence(is_first_B))[SOFT]
        if asked.may_hold_tokens:
            added_MD.masked_fill_(~asked.is_masked_M[:, None], 0)
        if batch.softened is None:
            return added_MD
        softened = batch.softened
        is_first_X = is_first_B.index_select(0, softened.sequence_X)
        return torch.cat((added_MD, self._state.rows(softened.slots_X, is_first_X)[SOFT]))

    def expected(self, logits: Logits) -> Tensor:
        """The mean embedding that these logits expect, without its weight: [N, D]."""
        return self._soft.expected(logits, self._runner.model.embed.weight)

    def following(
        self,
        batch: Batch,
        asked: AskedPositions,
        expected_MD: Tensor,
        hidden_XD: Tensor,
        piece: int,
    ) -> Tensor:
        """What the sequences' next forwards add, [M + X, D], if this one expects `expected_MD` at
        the requested positions and ends with `hidden_XD` at the softened ones. The logits of
        `piece` softened positions exist at a time."""
        weight_B = self._soft.weight(asked.num_iterations_B + 1).to(self._runner.dtype)
        sequence_N, expected_ND = asked.sequence_M, expected_MD
        if batch.softened is not None:
            pieces = (hidden_XD[i : i + piece] for i in range(0, hidden_XD.shape[0], piece))
            expected = [self.expected(self._runner.logits(each)) for each in pieces]
            expected_ND = torch.cat((expected_MD, *expected))
            sequence_N = torch.cat((sequence_N, batch.softened.sequence_X))
        return expected_ND * weight_B.index_select(0, sequence_N)[:, None]

    def write(self, batch: Batch, following_ND: Tensor) -> None:
        """Keep what the next forwards add."""
        slots_N = batch.slots_M
        if batch.softened is not None:
            slots_N = torch.cat((slots_N, batch.softened.slots_X))
        self._state.write(slots_N, {SOFT: following_ND})
