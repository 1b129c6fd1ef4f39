"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/): the optimizer of the demo
model's matrices. It learns to copy constants in less than half of AdamW's tokens.

torch.optim.Muon takes its Newton-Schulz iteration in bfloat16, which a CPU without bfloat16 units
emulates, at twenty times the cost of a whole forward and backward; this one takes it in float32.

Shape letters: N matrices of one shape, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(x_NRC: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, nearly: singular values end between 0.7 and 1.2."""
    is_tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.mT if is_tall else x_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only; `pieces` says how many stacked matrices each parameter holds."""

    def __init__(
        self,
        parameters: Iterable[tuple[nn.Parameter, int]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        groups: dict[int, list[nn.Parameter]] = defaultdict(list)
        for parameter, pieces in parameters:
            groups[pieces].append(parameter)
        super().__init__(
            [{"params": params, "pieces": pieces} for pieces, params in groups.items()],
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loss is never computed twice"
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                targets = parameter.chunk(group["pieces"])
                updates = self._momentum(parameter, group["momentum"]).chunk(group["pieces"])
                by_shape[targets[0].shape] += zip(targets, updates, strict=True)
            for (rows, columns), pairs in by_shape.items():
                update_NRC = orthogonalised(torch.stack([update for _, update in pairs]))
                lr = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (target, _), update in zip(pairs, update_NRC, strict=True):
                    target.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=lr)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's."""
        assert parameter.grad is not None, "every matrix takes part in every forward"
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["mean"], momentum)
