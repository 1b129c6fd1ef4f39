"""Stores the canvases of all live sequences: token ids on the device, addressed by slot like K
and V.

Shape letters: S slots, and the scratch slot behind them, which stands for positions that only pad a
batch; M requested positions.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.staging import Staging


class Decision(NamedTuple):
    """What one iteration decides for each requested position."""

    token_M: Tensor
    """int64: the token that the position takes if it commits."""
    confidence_M: Tensor
    """float32: the model's probability of that token."""
    commit_M: Tensor
    """bool: whether the position commits. If not, its token stays as it is."""


class Canvases:
    """One token id for each slot of the KV cache."""

    def __init__(self, num_slots: int, mask_token_id: int, device: torch.device) -> None:
        self._mask_token_id = mask_token_id
        self.mask = torch.tensor(mask_token_id, device=device)
        """The mask token, int64 of no dimension."""
        self._no_token = torch.tensor(-1, dtype=torch.int32, device=device)
        self._true = torch.tensor(True, device=device)
        self._tokens_S = torch.full((num_slots + 1,), mask_token_id, device=device)
        self._staging = Staging(device)
        self._laid_out: list[tuple[int, np.ndarray]] = []

    def lay_out(self, first_slot: int, prompt_ids: list[int], canvas_len: int) -> None:
        """Lay out a prompt, and masks for the rest of its canvas; `write` then brings it to the
        device."""
        tokens = np.full(canvas_len, self._mask_token_id, dtype=np.int64)
        tokens[: len(prompt_ids)] = prompt_ids
        self._laid_out.append((first_slot, tokens))

    def write(self) -> None:
        """Write all canvases that were laid out since the last call, in one asynchronous copy."""
        if not self._laid_out:
            return
        tokens = np.concatenate([tokens for _, tokens in self._laid_out])
        room = self._staging.room(tokens.size)
        room[:] = tokens
        pieces = self._staging.send(room).split([tokens.size for _, tokens in self._laid_out])
        for (first_slot, _), piece in zip(self._laid_out, pieces, strict=True):
            self._tokens_S[first_slot : first_slot + piece.shape[0]] = piece
        self._laid_out.clear()

    def tokens(self, slots: Tensor) -> Tensor:
        return self._tokens_S.index_select(0, slots)

    def all_masked(self, count: int) -> Tensor:
        """`is_masked` of so many masked positions, without reading them; not to be written to."""
        return self._true.expand(count)

    def is_masked(self, tokens: Tensor) -> Tensor:
        return tokens == self._mask_token_id

    def commit(
        self,
        slots_M: Tensor,
        old_M: Tensor,
        decision: Decision,
        twin_slots_G: Tensor | None = None,
    ) -> Tensor:
        """Write the committed tokens; `old_M` are the tokens there now, or `mask` if all are
        masked. Those of the last G positions are written to their twins too.

        Returns the report, the only data that the host reads in an iteration: int32 [2, M]. Its
        first row holds the committed token or -1, its second the bits of the float32 confidence.
        """
        committed_M = decision.token_M.int().where(decision.commit_M, self._no_token)
        report = torch.stack((committed_M, decision.confidence_M.view(torch.int32)))
        new_M = decision.token_M.where(decision.commit_M, old_M)
        self._tokens_S.index_copy_(0, slots_M, new_M)
        if twin_slots_G is not None:
            self._tokens_S.index_copy_(0, twin_slots_G, new_M[-twin_slots_G.shape[0] :])
        return report
