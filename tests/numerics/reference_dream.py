"""Dream's own sampler as its code computes it (arXiv 2508.15487)."""

import math

import torch

from tests.numerics.reference_view import Commits, View, in_order
from tests.numerics.reference_view import is_last as waits
from tests.numerics.reference_words import entropy, lead_doubt, random_order


def dream(
    view: View,
    *,
    iterations_per_block: int | None = None,
    order: str = "confidence",
    order_temperature: float = 0.0,
    eps: float = 1e-3,
) -> Commits:
    """Times on a grid from 1 to eps, a share of the masks in each iteration, all that are left in
    the last. `order` random is Dream's `origin`: each mask by itself."""
    proposals = view.propose()
    num_iterations, i = (
        iterations_per_block or view.num_masked_at_block_start,
        view.iteration_in_block,
    )
    times = torch.linspace(1, eps, num_iterations + 1)
    is_last = i >= num_iterations - 1
    share = 1.0 if is_last else float(1 - times[i + 1] / times[i])
    if order == "random":
        uniform = {j: random_order(view.seed, view.iteration, j) / 2**52 for j in view.masked}
        waiting = {j for j in view.masked if waits(proposals[j])}
        if is_last or len(waiting) == len(view.masked):
            waiting = set()
        drawn_ones = [j for j in view.masked if uniform[j] < share and j not in waiting]
        return {j: proposals[j] for j in drawn_ones}
    quota = len(view.masked)
    if not is_last:
        quota = int(torch.tensor(float(quota)) * (1 - times[i + 1] / times[i]))
    if order_temperature == 0:
        return {j: proposals[j] for j in in_order(view, proposals, order)[:quota]}
    scores = {
        "confidence": lambda j: proposals[j].confidence,
        "margin": lambda j: 1 - lead_doubt(view.logits[j]),
        "entropy": lambda j: -entropy(view.logits[j]),
    }

    def drawn(j: int) -> float:
        if waits(proposals[j]):
            return -math.inf
        uniform = (random_order(view.seed, view.iteration, j) + 0.5) / 2**52
        return scores[order](j) / order_temperature - math.log(-math.log(uniform))

    return {j: proposals[j] for j in sorted(view.masked, key=lambda j: -drawn(j))[:quota]}
