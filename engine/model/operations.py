"""The operations that the transformer is written with, and their meaning in plain torch.

The modules of engine/model/ hold the weights and say in which order things happen; how each thing
is computed is chosen by who calls the transformer. `TorchOperations` is the definition, the CPU
path, and what training takes gradients through; engine/model/triton_operations.py calls the fused
kernels of engine/kernels/ instead.

Shape letters as in engine/model/layers.py; M asked positions, V words on this rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from engine.model.layers import RMSNorm
    from engine.model.moe import MoE


class Operations(Protocol):
    """One way to compute the parts of a layer. Every result of a row depends on that row alone."""

    def linear(self, x_QD: Tensor, layer: nn.Linear) -> Tensor:
        """x weight^T + bias, in x's dtype."""

    def head(self, hidden_MD: Tensor, weight_VD: Tensor) -> Tensor:
        """The logits of asked positions, hidden weight^T: [M, V] in hidden's dtype."""

    def add_norm(
        self, x_QD: Tensor, delta_QD: Tensor | None, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        """The residual sum (x + delta, or x alone) and its norm, both [Q, D] in x's dtype."""

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up; [Q, 2 I] with the gate first -> [Q, I]."""

    def moe(self, h_QD: Tensor, moe: MoE) -> Tensor:
        """The weighted sum of each token's experts, plus the shared expert: [Q, D]. In a group, the
        part of it that this rank's share of the experts contributes."""

    def add_moe_norm(
        self, x_QD: Tensor, h_QD: Tensor, moe: MoE, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        """The residual sum x + moe(h) and its norm, for a rank that holds the whole model."""

    def of_selected(self) -> Operations:
        """The same for rows that are selected from the query tokens, of which none is padding."""


class TorchOperations:
    """Plain torch."""

    def linear(self, x_QD: Tensor, layer: nn.Linear) -> Tensor:
        return layer(x_QD)

    def head(self, hidden_MD: Tensor, weight_VD: Tensor) -> Tensor:
        return F.linear(hidden_MD, weight_VD)

    def add_norm(
        self, x_QD: Tensor, delta_QD: Tensor | None, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        if delta_QD is not None:
            x_QD = x_QD + delta_QD
        return x_QD, norm(x_QD)

    def swiglu(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def moe(self, h_QD: Tensor, moe: MoE) -> Tensor:
        y_QD = moe.experts(h_QD, *moe.router(h_QD))
        return y_QD if moe.shared is None else y_QD + moe.shared(h_QD, self)

    def add_moe_norm(
        self, x_QD: Tensor, h_QD: Tensor, moe: MoE, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        return self.add_norm(x_QD, moe(h_QD, self), norm)

    def of_selected(self) -> Operations:
        return self


TORCH = TorchOperations()
