"""LLaDA's own loop, and the loops of Fast-dLLM and dInfer for LLaDA and LLaDA-MoE."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import Drawn, Sampling
from tests.numerics.authors.forwards import Kept, Progress, Rows, begin, best_first, full, shares
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
    cfg_scale: float = 0.0,
    eos: int | None = None,
    logits_eos_inf: bool = False,
    last_words: tuple[int, ...] = (),
) -> list[int]:
    """LLaDA (arXiv 2502.09992, generate.py): blocks, a fixed number of commits in every step, a
    full forward each. `steps_per_block` None: one commit a step.

    `logits_eos_inf`: `eos` is never predicted. `last_words`: positions that propose one of these
    have the confidence -inf and so commit last (Appendix B.4, confidence_eos_eot_inf as it is
    meant).
    """
    run = begin(model, request, Sampling(temperature=request.temperature))
    for block in _blocks(run, block_length):
        num_masked = len(run.masked(block))
        for num_commits in shares(num_masked, steps_per_block or num_masked):
            rows = _guided(run, cfg_scale)
            if logits_eos_inf:
                assert eos is not None, "which word is EOS?"
                rows = {i: _without(row, eos) for i, row in rows.items()}
            drawn = run.draw(rows, run.masked(block))
            drawn = {
                i: replace(it, doubt=2.0) if it.word in last_words else it
                for i, it in drawn.items()
            }
            order = best_first(drawn)
            if remasking == "random":
                order.sort(key=lambda i: -random_order(request.seed, run.num_forwards, i))
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
) -> list[int]:
    """Fast-dLLM (arXiv 2505.22618) for LLaDA. The full forward that opens a block commits as every
    other does. Then, with `prefix` the block and all that follows are computed, with `dual` the
    block alone; with `none` the whole canvas again."""
    run = begin(model, request, Sampling(temperature=request.temperature))
    whole = range(len(run.canvas))
    kept = Kept(model, len(run.canvas))
    for block in _blocks(run, block_length):
        later = {"none": whole, "prefix": range(block.start, whole.stop), "dual": block}[cache]
        positions = whole
        while run.masked(block):
            drawn = run.draw(kept.forward(run.canvas, positions), run.masked(block))
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


def _guided(run: Progress, scale: float) -> Rows:
    """Logits of a full forward. With a scale, those of classifier-free guidance: a second forward
    sees masks for the prompt."""
    rows = full(run.model, run.canvas)
    if scale == 0:
        return rows
    num_prompt_tokens = len(run.request.prompt_ids)
    blind = [run.mask] * num_prompt_tokens + run.canvas[num_prompt_tokens:]
    others = full(run.model, blind)
    return {i: _pushed(rows[i], others[i], scale, run.mask) for i in rows}


def _pushed(row: np.ndarray, other: np.ndarray, scale: float, mask: int) -> np.ndarray:
    row, other = _with(row, mask, 0.0), _with(other, mask, 0.0)
    return _with(other + np.float32(scale + 1) * (row - other), mask, -np.inf)


def _without(row: np.ndarray, word: int) -> np.ndarray:
    return _with(row, word, -np.inf)


def _with(row: np.ndarray, word: int, value: float) -> np.ndarray:
    changed = row.copy()
    changed[word] = value
    return changed
