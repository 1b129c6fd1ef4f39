"""Keeps the experts equally busy by adjusting router biases, without an auxiliary loss.

As in arXiv 2408.15664, DeepSeek-V3 and LLaDA2: after every batch, the router bias of an expert that
was chosen less often than the mean is raised by a fixed amount; if it was chosen more often, the
bias is lowered by the same amount. The bias affects only which experts are chosen.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.model.moe import MoE, Router

RATE = 0.003
"""The fixed amount; training scales it with the learning rate schedule."""


class Balance:
    """Counts how often each router chooses each expert, and adjusts the biases. Does nothing for a
    model without routers."""

    def __init__(self, model: nn.Module) -> None:
        self.routers = [module for module in model.modules() if isinstance(module, Router)]
        self.counts = [torch.zeros_like(router.bias) for router in self.routers]
        self.busiest: list[float] = []
        """For each router: how often its most chosen expert was chosen in the last batch, divided
        by the mean over its experts. 1 is perfectly even."""
        for router, counts_X in zip(self.routers, self.counts, strict=True):
            router.register_forward_hook(_counter(counts_X))
        for module in model.modules():
            if isinstance(module, MoE):
                # Not compiled: the number of tokens per expert is known only in the forward.
                module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]

    @torch.no_grad()
    def adjust(self, factor: float) -> None:
        """Move every bias up or down by `factor` * RATE, and reset the counts."""
        self.busiest = [(counts_X.max() / counts_X.mean()).item() for counts_X in self.counts]
        for router, counts_X in zip(self.routers, self.counts, strict=True):
            router.bias.add_((counts_X.mean() - counts_X).sign(), alpha=factor * RATE)
            counts_X.zero_()


def _counter(counts_X: Tensor) -> Callable[[nn.Module, object, tuple[Tensor, Tensor]], None]:
    def count(router: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        if torch.is_grad_enabled():
            counts_X.add_(output[0].flatten().bincount(minlength=len(counts_X)))

    return count
