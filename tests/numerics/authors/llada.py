"""LLaDA's own loop, and the loops of Fast-dLLM and dInfer for LLaDA and LLaDA-MoE."""

from collections.abc import Callable, Iterator

import numpy as np

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import NOTHING_HELD, Drawn, Held, Sampling
from tests.numerics.authors.forwards import Kept, Progress, Rows, begin, best_first, shares
from tests.numerics.reference_words import random_order

Choice = Callable[[dict[int, Drawn]], list[int]]
"""Which of the drawn positions commit."""


def llada(
    model: Transformer,
    request: Request,
    *,
    block_length: int,
    steps_per_block: int | None = None,
    remasking: str = "low_confidence",
    held: Held = NOTHING_HELD,
) -> list[int]:
    """LLaDA (arXiv 2502.09992, generate.py): blocks, a fixed number of commits in every step, a
    full forward each. `steps_per_block` None: one commit a step. A request's guidance is their
    `cfg_scale`."""
    run = begin(model, request, Sampling(temperature=request.temperature, held=held))
    guided = Guided(run)
    for block in _blocks(run, block_length):
        num_masked = len(run.masked(block))
        for num_commits in shares(num_masked, steps_per_block or num_masked):
            drawn = run.draw(guided.full(), run.masked(block))
            order = best_first(drawn)
            if remasking == "random":
                noise = {i: random_order(request.seed, run.num_forwards, i) for i in order}
                order.sort(key=lambda i: (drawn[i].word in held.last, -noise[i]))
            if num_commits:
                run.commit({i: drawn[i].word for i in order[:num_commits]})
    return run.generated()


def fast_dllm(
    model: Transformer,
    request: Request,
    *,
    block_length: int,
    cache: str,
    choice: Choice,
    held: Held = NOTHING_HELD,
) -> list[int]:
    """Fast-dLLM (arXiv 2505.22618) for LLaDA. The full forward that opens a block commits as every
    other does. Then, with `prefix` the block and all that follows are computed, with `dual` the
    block alone; with `none` the whole canvas again."""
    run = begin(model, request, Sampling(temperature=request.temperature, held=held))
    whole = range(len(run.canvas))
    guided = Guided(run)
    for block in _blocks(run, block_length):
        later = {"none": whole, "prefix": range(block.start, whole.stop), "dual": block}[cache]
        positions = whole
        while run.masked(block):
            drawn = run.draw(guided.forward(positions), run.masked(block))
            run.commit({i: drawn[i].word for i in choice(drawn)})
            positions = later
    return run.generated()


def at_threshold(threshold: float) -> Choice:
    """Fast-dLLM: all whose confidence is not below the threshold, and the best."""

    def choose(drawn: dict[int, Drawn]) -> list[int]:
        best = best_first(drawn)[0]
        return [i for i in drawn if i == best or drawn[i].confidence >= threshold]

    return choose


def at_lowered_threshold(threshold: float) -> Choice:
    """dInfer (arXiv 2510.08666): all that reach the threshold, which is lowered to just below the
    highest confidence where none does."""

    def choose(drawn: dict[int, Drawn]) -> list[int]:
        highest = max(it.confidence for it in drawn.values())
        least = min(highest - 1e-5, threshold)
        return [i for i in drawn if drawn[i].confidence >= least]

    return choose


def by_factor(factor: float, *, as_coded: bool) -> Choice:
    """Fast-dLLM's factor. In the paper: the most positions, best first, of which the n-th has
    (n + 1)(1 - c) <= factor. As coded in its later version: the positions before the first that
    fails, with that one too if it is the last of all."""

    def choose(drawn: dict[int, Drawn]) -> list[int]:
        order = best_first(drawn)
        fails = [n > 1 and (n + 1) * drawn[i].doubt > factor for n, i in enumerate(order, start=1)]
        num_passing = fails.index(True) if True in fails else len(order)
        if as_coded and num_passing == len(order) - 1:
            num_passing += 1
        return order[:num_passing]

    return choose


def _blocks(run: Progress, block_length: int) -> Iterator[range]:
    """The blocks of the generation region; the last one may be shorter."""
    for start in range(len(run.request.prompt_ids), len(run.canvas), block_length):
        yield range(start, min(start + block_length, len(run.canvas)))


class Guided:
    """Forwards whose logits are those of classifier-free guidance (arXiv 2502.09992), if the
    request has any: a second forward sees masks for the prompt. Each has K and V of its own."""

    def __init__(self, run: Progress) -> None:
        self._run = run
        self._kept = Kept(run.model, len(run.canvas))
        self._blind = Kept(run.model, len(run.canvas))

    def full(self) -> Rows:
        return self.forward(range(len(self._run.canvas)))

    def forward(self, positions: range) -> Rows:
        run, scale = self._run, self._run.request.guidance
        rows = self._kept.forward(run.canvas, positions)
        if scale == 0:
            return rows
        num_prompt_tokens = len(run.request.prompt_ids)
        blind = [run.mask] * num_prompt_tokens + run.canvas[num_prompt_tokens:]
        others = self._blind.forward(blind, positions)
        return {i: _pushed(rows[i], others[i], scale, run.mask) for i in rows}


def _pushed(row: np.ndarray, other: np.ndarray, scale: float, mask: int) -> np.ndarray:
    """z_un + (w + 1) (z_c - z_un), but for the mask's logit, which is -inf in both."""
    words = np.arange(len(row)) != mask
    pushed = row.copy()
    pushed[words] = other[words] + np.float32(scale + 1) * (row[words] - other[words])
    return pushed
