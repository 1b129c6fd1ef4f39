"""Stores the canvases of all live sequences: token ids on the device, addressed by slot like K
and V.

Shape letters: S slots, M requested positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor


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
        self._tokens_S = torch.full((num_slots,), mask_token_id, device=device)

    def lay_out(self, first_slot: int, prompt_ids: list[int], canvas_len: int) -> None:
        """Write a prompt, and masks for the rest of its canvas."""
        prompt = torch.tensor(prompt_ids, device=self._tokens_S.device)
        self._tokens_S[first_slot : first_slot + len(prompt_ids)] = prompt
        self._tokens_S[first_slot + len(prompt_ids) : first_slot + canvas_len] = self._mask_token_id

    def tokens(self, slots: Tensor) -> Tensor:
        return self._tokens_S[slots]

    def is_masked(self, tokens: Tensor) -> Tensor:
        return tokens == self._mask_token_id

    def commit(self, slots_M: Tensor, old_M: Tensor, decision: Decision) -> Tensor:
        """Write the committed tokens; `old_M` are the tokens there now.

        Returns the report, the only data that the host reads in an iteration: int32 [2, M]. Its
        first row holds the committed token or -1, its second the bits of the float32 confidence.
        """
        committed_M = decision.token_M.masked_fill(~decision.commit_M, -1).int()
        report = torch.stack((committed_M, decision.confidence_M.view(torch.int32)))
        new_M = decision.token_M.where(decision.commit_M, old_M)
        self._tokens_S.index_copy_(0, slots_M, new_M)
        return report
