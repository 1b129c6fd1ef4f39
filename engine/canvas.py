"""The canvases of all live sequences, on the device: token ids addressed by slot, like K and V.

Shape letters: S slots, M asked positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Decision(NamedTuple):
    """What the asked positions come to in one iteration."""

    token_M: Tensor
    """int64."""
    confidence_M: Tensor
    """float32, the model's probability of that token."""
    commit_M: Tensor
    """bool; the others stay as they are."""


class Canvases:
    def __init__(self, num_slots: int, mask_token_id: int, device: torch.device) -> None:
        self._mask_token_id = mask_token_id
        self._tokens_S = torch.full((num_slots,), mask_token_id, device=device)

    def lay_out(self, first_slot: int, prompt_ids: list[int], canvas_len: int) -> None:
        """Write a prompt and the masks behind it."""
        prompt = torch.tensor(prompt_ids, device=self._tokens_S.device)
        self._tokens_S[first_slot : first_slot + len(prompt_ids)] = prompt
        self._tokens_S[first_slot + len(prompt_ids) : first_slot + canvas_len] = self._mask_token_id

    def tokens(self, slots: Tensor) -> Tensor:
        return self._tokens_S[slots]

    def is_masked(self, tokens: Tensor) -> Tensor:
        return tokens == self._mask_token_id

    def commit(self, slots_M: Tensor, old_M: Tensor, decision: Decision) -> Tensor:
        """Write a decision over the old tokens.

        Returns what the host reads, the one transfer of an iteration: int32 [2, M], the committed
        token or -1, and the bits of its float32 confidence.
        """
        committed_M = decision.token_M.where(decision.commit_M, -1).int()
        report = torch.stack((committed_M, decision.confidence_M.view(torch.int32)))
        new_M = decision.token_M.where(decision.commit_M, old_M)
        self._tokens_S.index_copy_(0, slots_M, new_M)
        return report
