"""Stores what a decoding strategy or soft iteration remembers of a position from one forward to the
next, while the position's block is active.

The state is on the device and addressed by slot, like token ids, K and V. So it belongs to the
sequence that holds the slot.

Shape letters: S slots, M requested positions, W width of a field.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.decoding.base import StateField


class SlotState:
    """One row of every field for each slot, and for the scratch slot behind them, which stands for
    requested positions that only pad a batch."""

    def __init__(
        self, fields: Mapping[str, StateField], num_slots: int, device: torch.device
    ) -> None:
        self._fields = {
            name: torch.zeros((num_slots + 1, field.width), dtype=field.dtype, device=device)
            for name, field in fields.items()
        }

    @property
    def has_fields(self) -> bool:
        return bool(self._fields)

    def rows(self, slots_M: Tensor, is_first_M: Tensor) -> dict[str, Tensor]:
        """The rows of every field, [M, W]. Zeros where `is_first_M`: the position's block has just
        been entered, and the slot still holds old values."""
        is_first_M1 = is_first_M[:, None]
        return {
            name: rows_SW.index_select(0, slots_M).masked_fill_(is_first_M1, 0)
            for name, rows_SW in self._fields.items()
        }

    def write(self, slots_M: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Store the new rows of every field."""
        assert rows.keys() == self._fields.keys(), (
            f"the decoding strategy returned state for {list(rows)}, not for {list(self._fields)}"
        )
        for name, rows_MW in rows.items():
            self._fields[name].index_copy_(0, slots_M, rows_MW)
