"""What a decoding strategy, or soft iteration, keeps of a position while its block is active.

It lies on the device, addressed by slot like token ids, K and V, and so it belongs to the sequence
that was granted the slot. Shape letters: S slots, M asked positions, W width of a field.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.decoding.base import StateField


class SlotState:
    def __init__(
        self, fields: Mapping[str, StateField], num_slots: int, device: torch.device
    ) -> None:
        self._fields = {
            name: torch.zeros((num_slots, field.width), dtype=field.dtype, device=device)
            for name, field in fields.items()
        }

    def rows(self, slots_M: Tensor, is_first_M: Tensor) -> dict[str, Tensor]:
        """Every field's [M, W]; zeros where the position's block has just been entered."""
        is_first_M1 = is_first_M[:, None]
        return {
            name: rows_SW[slots_M].masked_fill_(is_first_M1, 0)
            for name, rows_SW in self._fields.items()
        }

    def write(self, slots_M: Tensor, rows: Mapping[str, Tensor]) -> None:
        assert rows.keys() == self._fields.keys(), f"{list(rows)}, not {list(self._fields)}"
        for name, rows_MW in rows.items():
            self._fields[name].index_copy_(0, slots_M, rows_MW)
