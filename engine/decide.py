"""Turns hidden states into commits: the head, the decoding strategy and soft iteration.

The requested positions are processed in pieces, so that their logits fit into
EngineConfig.logits_bytes.

Shape letters: M requested positions, G the last of them, which have guidance; D hidden size, B
sequences.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from engine.canvas import Canvases, Decision
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy, StateField
from engine.decoding.positions import AskedPositions, Proposals, joined
from engine.device_batch import Batch
from engine.guidance import Twins, Unconditional, bytes_per_guided_logit
from engine.runner import ModelRunner
from engine.state import SlotState

SOFT = "soft_embedding"
"""Soft iteration's field of the slot state: the embedding that a position's last logits expect."""


class Decider:
    """Decides which requested positions commit to which tokens, and writes them to the canvases.

    It also keeps the per-position state of the strategy and of soft iteration.
    """

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
        self._attn_block_length_if_shifted = model.block_length if model.is_shifted else None
        # All ranks of a group must cut the same pieces, though their shares of the words differ.
        self._most_words_of_a_rank = runner.model.parallel.longest_share(model.vocab_size)
        fields = dict(decoding.state_fields(model.vocab_size, block_length))
        if config.soft.enabled:
            fields[SOFT] = StateField(model.hidden_size, runner.dtype)
        self._state = SlotState(fields, num_slots, runner.device)

    def asked(self, batch: Batch) -> AskedPositions:
        """The batch's requested positions, completed with what only the device knows: their tokens
        and state. With soft iteration, also its limits on the confidence threshold."""
        asked = batch.asked
        if self._decoding.edits:
            token_M = self._canvases.tokens(batch.slots_M)
            is_masked_M = self._canvases.is_masked(token_M)
        else:
            token_M, is_masked_M = self._canvases.all_masked(batch.slots_M.shape[0])
        state: dict[str, Tensor] = {}
        if self._state.has_fields:
            is_first_M = asked.of_sequence(asked.num_iterations_in_block_B) == 0
            state = self._state.rows(batch.slots_M, is_first_M)
        least_B = self._soft.least_threshold(asked.num_iterations_B) if self._soft.enabled else None
        return replace(
            asked,
            token_M=token_M,
            is_masked_M=is_masked_M,
            may_hold_tokens=self._decoding.edits,
            least_threshold_B=least_B,
            state=state,
        )

    def added(self, asked: AskedPositions) -> Tensor | None:
        """What soft iteration adds to the embeddings of the requested positions, [M, D]: zeros
        where a position is not masked. None if soft iteration is off."""
        if not self._soft.enabled:
            return None
        weight_M = asked.of_sequence(self._soft.weight(asked.num_iterations_B))
        weight_M = weight_M * asked.is_masked_M
        return asked.state[SOFT] * weight_M[:, None].to(self._runner.dtype)

    def commit(self, batch: Batch, asked: AskedPositions, hidden_MD: Tensor) -> Tensor:
        """Decide which positions commit, and write their tokens and all new state.

        Nothing is written until everything has been computed, so a forward that runs out of memory
        can be run again. `hidden_MD`: as ModelRunner.forward gives them, those of the twins behind.
        Returns the report for the host, int32 [2, M] (see Canvases.commit).
        """
        num_asked, twins = asked.sequence_M.shape[0], batch.twins
        if num_asked == 0:
            return torch.empty((2, 0), dtype=torch.int32, device=hidden_MD.device)
        reads_whole = self._decoding.reads_whole_logits or self._soft.enabled
        bytes_per_logit = self._runner.kernels.bytes_per_logit(asked.any_sampled, reads_whole)
        piece = self._config.positions_of_a_piece(self._most_words_of_a_rank, bytes_per_logit)
        if num_asked <= piece and twins is None:
            proposals = self._proposals(asked, hidden_MD)
        else:
            num_plain = num_asked if twins is None else num_asked - twins.index_G.shape[0]
            starts = range(0, num_plain, piece)
            ends = [min(i + piece, num_plain) for i in starts]
            pieces = zip(starts, ends, strict=True)
            found = [self._proposals(asked.rows(i, j), hidden_MD[i:j]) for i, j in pieces]
            if twins is not None:
                found += self._guided_proposals(asked, hidden_MD, twins, bytes_per_logit)
            proposals = joined(found)
        commit_M = self._decoding.choose(asked, proposals)
        if self._attn_block_length_if_shifted is not None:
            # Shifted logits of an attention block's first position come from the finished block
            # before it and can no longer change, so the position commits at once, as in Fast-dLLM
            # v2 (arXiv 2509.26328).
            is_first_M = asked.position_M % self._attn_block_length_if_shifted == 0
            commit_M = commit_M | (asked.is_masked_M & is_first_M)
        decision = Decision(proposals.token_M, proposals.confidence_M, commit_M)
        twin_slots_G = None if twins is None else twins.slots_G
        report = self._canvases.commit(batch.slots_M, asked.token_M, decision, twin_slots_G)
        self._state.write(batch.slots_M, proposals.state)
        return report

    def _guided_proposals(
        self, asked: AskedPositions, hidden_MD: Tensor, twins: Twins, bytes_per_logit: int
    ) -> Iterator[Proposals]:
        """The proposals of the last G requested positions, piece by piece."""
        num_asked, num_guided = asked.sequence_M.shape[0], twins.index_G.shape[0]
        own = self._runner.dtype.itemsize
        bytes_per_logit = bytes_per_guided_logit(bytes_per_logit, own)
        piece = self._config.positions_of_a_piece(self._most_words_of_a_rank, bytes_per_logit)
        twin_GD = hidden_MD[num_asked:]
        for start in range(0, num_guided, piece):
            end = min(start + piece, num_guided)
            without = Unconditional(twin_GD[start:end], twins.weight_G[start:end])
            i, j = (num_asked - num_guided + each for each in (start, end))
            yield self._proposals(asked.rows(i, j), hidden_MD[i:j], without)

    def _proposals(
        self, asked: AskedPositions, hidden_MD: Tensor, without: Unconditional | None = None
    ) -> Proposals:
        logits = self._runner.logits(hidden_MD, without)
        proposals = self._decoding.propose(asked, logits)
        if not self._soft.enabled:
            return proposals
        expected_MD = self._soft.expected(logits, self._runner.model.embed.weight)
        return proposals._replace(state={**proposals.state, SOFT: expected_MD})
