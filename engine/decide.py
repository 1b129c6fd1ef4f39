"""From hidden states to commits: the head, the strategy and soft iteration, piece by piece.

Shape letters: M asked positions, D hidden size, B sequences.
"""

from dataclasses import replace

import torch
from torch import Tensor

from engine.batch import Batch
from engine.canvas import Canvases, Decision
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy, StateField
from engine.decoding.positions import AskedPositions, Proposals, joined
from engine.runner import ModelRunner
from engine.state import SlotState

SOFT = "soft_embedding"
"""Soft iteration's field in the slots: what the last logits of a position expected."""


class Decider:
    def __init__(
        self,
        config: EngineConfig,
        block_length: int,
        decoding: DecodingStrategy,
        runner: ModelRunner,
        canvases: Canvases,
        num_slots: int,
    ) -> None:
        model = runner.model.config
        self._soft = config.soft
        self._decoding = decoding
        self._runner = runner
        self._canvases = canvases
        self._config = config
        self._settled_every = model.block_length if model.is_shifted else None
        self._longest_run = runner.model.parallel.longest_share(model.vocab_size)
        fields = dict(decoding.state_fields(model.vocab_size, block_length))
        if config.soft.enabled:
            fields[SOFT] = StateField(model.hidden_size, runner.dtype)
        self._state = SlotState(fields, num_slots, runner.device)

    def asked(self, batch: Batch) -> AskedPositions:
        """The batch's asked positions, with what the device knows of them."""
        asked = batch.asked
        token_M = self._canvases.tokens(batch.slots_M)
        is_first_M = asked.of_sequence(asked.num_iterations_in_block_B) == 0
        least_B = self._soft.least_threshold(asked.num_iterations_B) if self._soft.enabled else None
        return replace(
            asked,
            token_M=token_M,
            is_masked_M=self._canvases.is_masked(token_M),
            least_threshold_B=least_B,
            state=self._state.rows(batch.slots_M, is_first_M),
        )

    def added(self, asked: AskedPositions) -> Tensor | None:
        """What soft iteration adds to the embeddings of the asked positions, [M, D]."""
        if not self._soft.enabled:
            return None
        weight_M = asked.of_sequence(self._soft.weight(asked.num_iterations_B))
        weight_M = weight_M * asked.is_masked_M
        return asked.state[SOFT] * weight_M[:, None].to(self._runner.dtype)

    def commit(self, batch: Batch, asked: AskedPositions, hidden_MD: Tensor) -> Tensor:
        """Decide and write; returns what the host reads, int32 [2, M] as Canvases.commit says.

        Nothing is written before all memory is there, so that a forward which fails for want of it
        can be run again.
        """
        num_asked = hidden_MD.shape[0]
        if num_asked == 0:
            return torch.empty((2, 0), dtype=torch.int32)
        piece = self._config.positions_of_a_piece(self._longest_run, asked.any_sampled)
        starts = range(0, num_asked, piece)
        proposals = joined(
            [
                self._proposals(asked.rows(first, end), hidden_MD[first:end])
                for first, end in zip(starts, [*starts[1:], num_asked], strict=True)
            ]
        )
        commit_M = self._decoding.choose(asked, proposals)
        if self._settled_every is not None:
            # The logits of a block's first position come from a finished block and can change no
            # more: as in Fast-dLLM v2 (arXiv 2509.26328) it waits for nothing.
            commit_M = commit_M | (
                asked.is_masked_M & (asked.position_M % self._settled_every == 0)
            )
        decision = Decision(proposals.token_M, proposals.confidence_M, commit_M)
        report = self._canvases.commit(batch.slots_M, asked.token_M, decision)
        self._state.write(batch.slots_M, proposals.state)
        return report

    def _proposals(self, asked: AskedPositions, hidden_MD: Tensor) -> Proposals:
        logits = self._runner.logits(hidden_MD)
        proposals = self._decoding.propose(asked, logits)
        if not self._soft.enabled:
            return proposals
        expected_MD = self._soft.expected(logits, self._runner.model.embed.weight)
        return proposals._replace(state={**proposals.state, SOFT: expected_MD})
