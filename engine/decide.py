"""Turns hidden states into commits: the head, the decoding strategy and soft iteration.

The requested positions are processed in pieces, so that their logits fit into
EngineConfig.logits_bytes.

Shape letters: M requested positions, G the last of them, which have guidance; X softened positions
behind the active blocks, N = M + X; D hidden size, B sequences.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.canvas import Canvases, Decision
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.decoding.filters import bytes_per_logit as view_bytes
from engine.decoding.filters import seen
from engine.decoding.positions import AskedPositions, Proposals, joined
from engine.decoding.suppress import held_back, put_last
from engine.device_batch import Batch
from engine.guidance import Twins, Unconditional, bytes_per_guided_logit
from engine.model.authors import Opening
from engine.runner import ModelRunner
from engine.soft_embeddings import SOFT, SoftEmbeddings
from engine.state import SlotState


class Decider:
    """Decides which requested positions commit to which tokens, and writes them to the canvases.

    It also keeps the per-position state of the strategy.
    """

    def __init__(
        self,
        config: EngineConfig,
        block_length: int,
        opening: Opening,
        decoding: DecodingStrategy,
        runner: ModelRunner,
        canvases: Canvases,
        num_slots: int,
    ) -> None:
        model = runner.model.config
        self._soft = config.soft
        self._decoding = decoding
        self._last = held_back(decoding, model).last
        self._runner = runner
        self._canvases = canvases
        self._config = config
        self._first_of = model.block_length if opening == "first" else None
        # All ranks of a group must cut the same pieces, though their shares of the words differ.
        self._most_words_of_a_rank = runner.model.parallel.longest_share(model.vocab_size)
        fields = decoding.state_fields(model.vocab_size, block_length)
        self._state = SlotState(fields, num_slots, runner.device)
        self._embeddings = (
            SoftEmbeddings(config.soft, runner, num_slots) if config.soft.enabled else None
        )

    def asked(self, batch: Batch) -> AskedPositions:
        """The batch's requested positions, completed with what only the device knows: their tokens
        and state. With soft iteration, also its limits on the confidence threshold."""
        asked = batch.asked
        token_M = asked.token_M
        if self._decoding.edits:
            token_M = self._canvases.tokens(batch.slots_M)
            is_masked_M = self._canvases.is_masked(token_M)
        else:
            is_masked_M = self._canvases.all_masked(batch.slots_M.shape[0])
        state: dict[str, Tensor] = {}
        if self._state.has_fields:
            is_first_M = asked.of_sequence(asked.num_iterations_in_block_B) == 0
            state = self._state.rows(batch.slots_M, is_first_M)
        least_B = self._soft.least_threshold(asked.num_iterations_B) if self._soft.enabled else None
        return asked._replace(
            token_M=token_M,
            is_masked_M=is_masked_M,
            may_hold_tokens=self._decoding.edits,
            least_threshold_B=least_B,
            state=state,
        )

    def added(self, batch: Batch, asked: AskedPositions) -> Tensor | None:
        """What soft iteration adds to the embeddings of the requested and the softened positions,
        [N, D]. None if soft iteration is off."""
        return None if self._embeddings is None else self._embeddings.added(batch, asked)

    def commit(self, batch: Batch, asked: AskedPositions, hidden_ND: Tensor) -> Tensor:
        """Decide which positions commit, and write their tokens and all new state.

        Nothing is written until everything has been computed, so a forward that runs out of memory
        can be run again. `hidden_ND`: as ModelRunner.forward gives them, those of the twins behind.
        Returns the report for the host, int32 [2, M] (see Canvases.commit).
        """
        num_asked, twins = batch.slots_M.shape[0], batch.twins
        if num_asked == 0:
            assert batch.softened is None, "only decoding forwards soften"
            return torch.empty((2, 0), dtype=torch.int32, device=hidden_ND.device)
        end_of_softened = hidden_ND.shape[0] - (0 if twins is None else twins.index_G.shape[0])
        hidden_MD = hidden_ND if hidden_ND.shape[0] == num_asked else hidden_ND[:num_asked]
        reads_whole = self._decoding.reads_whole_logits or self._soft.enabled
        bytes_per_logit = self._runner.kernels.bytes_per_logit(asked.any_sampled, reads_whole)
        bytes_per_logit += view_bytes(asked.filters, self._runner.model.parallel.size)
        piece = self._piece(bytes_per_logit)
        if num_asked <= piece and twins is None:
            proposals = self._proposals(asked, hidden_MD)
        else:
            twins_GD = hidden_ND[end_of_softened:]
            pieces = self._in_pieces(asked, hidden_MD, twins, twins_GD, bytes_per_logit)
            proposals = joined(list(pieces))
        commit_M = self._decoding.choose(asked, proposals)
        if self._first_of is not None:
            # Shifted logits of an attention block's first position come from the finished block
            # before it and can no longer change.
            is_first_M = asked.position_M % self._first_of == 0
            commit_M = commit_M | (asked.is_masked_M & is_first_M)
        decision = Decision(proposals.token_M, proposals.confidence_M, commit_M)
        state, soft_ND = dict(proposals.state), None
        if self._embeddings is not None:
            expected_MD, hidden_XD = state.pop(SOFT), hidden_ND[num_asked:end_of_softened]
            soft_ND = self._embeddings.following(batch, asked, expected_MD, hidden_XD, piece)
        twin_slots_G = None if twins is None else twins.slots_G
        old_M = asked.token_M if self._decoding.edits else self._canvases.mask
        report = self._canvases.commit(batch.slots_M, old_M, decision, twin_slots_G)
        self._state.write(batch.slots_M, state)
        if self._embeddings is not None and soft_ND is not None:
            self._embeddings.write(batch, soft_ND)
        return report

    def _in_pieces(
        self,
        asked: AskedPositions,
        hidden_MD: Tensor,
        twins: Twins | None,
        twins_GD: Tensor,
        bytes_per_logit: int,
    ) -> Iterator[Proposals]:
        """The proposals of the positions without guidance, then of those with, piece by piece.
        `twins_GD`: the hidden states of the twins."""
        num_asked, num_guided = asked.sequence_M.shape[0], 0
        if twins is not None:
            num_guided = twins.index_G.shape[0]
        num_plain = num_asked - num_guided
        piece = self._piece(bytes_per_logit)
        for start in range(0, num_plain, piece):
            end = min(start + piece, num_plain)
            yield self._proposals(asked.rows(start, end), hidden_MD[start:end])
        if twins is None:
            return
        own = self._runner.dtype.itemsize
        piece = self._piece(bytes_per_guided_logit(bytes_per_logit, own))
        for start in range(0, num_guided, piece):
            end = min(start + piece, num_guided)
            without = Unconditional(twins_GD[start:end], twins.weight_G[start:end])
            i, j = num_plain + start, num_plain + end
            yield self._proposals(asked.rows(i, j), hidden_MD[i:j], without)

    def _piece(self, bytes_per_logit: int) -> int:
        return self._config.positions_of_a_piece(self._most_words_of_a_rank, bytes_per_logit)

    def _proposals(
        self, asked: AskedPositions, hidden_MD: Tensor, without: Unconditional | None = None
    ) -> Proposals:
        logits = self._runner.logits(hidden_MD, without)
        proposals = self._decoding.propose(asked, seen(logits, asked))
        if self._embeddings is not None:
            expected_MD = self._embeddings.expected(logits)
            proposals = proposals._replace(state={**proposals.state, SOFT: expected_MD})
        return put_last(self._last, proposals) if self._last else proposals
