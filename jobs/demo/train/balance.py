"""Keeps experts equally busy without a loss of its own (arXiv 2408.15664; DeepSeek-V3, LLaDA2).

After every batch an expert that was chosen less often than the mean has its router bias raised by
one fixed amount, one chosen more often lowered. The bias weighs in the choice alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.model.moe import MoE, Router

RATE = 0.003


class Balance:
    """Counts the choices of every router of a model; one without routers it leaves alone."""

    def __init__(self, model: nn.Module) -> None:
        self.routers = [module for module in model.modules() if isinstance(module, Router)]
        self.counts = [torch.zeros_like(router.bias) for router in self.routers]
        self.busiest: list[float] = []
        """Of each router, the most chosen expert's share of the last batch; 1 were even."""
        for router, counts_X in zip(self.routers, self.counts, strict=True):
            router.register_forward_hook(_counter(counts_X))
        for module in model.modules():
            if isinstance(module, MoE):
                # How many tokens an expert gets is known in the forward only.
                module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]

    @torch.no_grad()
    def adjust(self, factor: float) -> None:
        """Move every bias by `factor` * RATE, and begin to count anew."""
        self.busiest = [(counts_X.max() / counts_X.mean()).item() for counts_X in self.counts]
        for router, counts_X in zip(self.routers, self.counts, strict=True):
            router.bias.add_((counts_X.mean() - counts_X).sign(), alpha=factor * RATE)
            counts_X.zero_()


def _counter(counts_X: Tensor) -> Callable[[nn.Module, object, tuple[Tensor, Tensor]], None]:
    def count(router: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        if torch.is_grad_enabled():
            counts_X.add_(output[0].flatten().bincount(minlength=len(counts_X)))

    return count
