"""The Muon optimizer, for the matrices of the demo models.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. With it, a model learns to copy
constants in less than half of the tokens that it needs with AdamW.

torch.optim.Muon computes its Newton-Schulz iteration in bfloat16. A CPU without bfloat16 units
emulates that, at twenty times the cost of a whole forward and backward pass. This implementation
computes it in float32.

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
    """The nearest semi-orthogonal matrices, nearly: singular values are between 0.7 and 1.2."""
    is_tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = x_NRC.mT if is_tall else x_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Optimizes matrices, and parameters that stack matrices (experts).

    Each parameter comes with a number of pieces: how many separate matrices are concatenated along
    its rows (as gate and up are). Every piece is orthogonalised on its own.
    """

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
                rows = parameter.shape[-2] // group["pieces"]
                target_NRC = parameter.view(-1, rows, parameter.shape[-1])
                update_NRC = self._momentum(parameter, group["momentum"]).view_as(target_NRC)
                by_shape[target_NRC.shape[1:]].append((target_NRC, update_NRC))
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalised(torch.cat([update_NRC for _, update_NRC in pairs]))
                lr = group["lr"] * max(1.0, rows / columns) ** 0.5
                sizes = [len(target_NRC) for target_NRC, _ in pairs]
                for (target_NRC, _), update_NRC in zip(pairs, updates.split(sizes), strict=True):
                    target_NRC.mul_(1 - group["lr"] * group["weight_decay"])
                    target_NRC.sub_(update_NRC, alpha=lr)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Update the running mean of the gradient; returns the gradient with Nesterov momentum."""
        assert parameter.grad is not None, "every matrix takes part in every forward"
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["mean"], momentum)
