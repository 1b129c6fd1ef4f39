"""Loops of bidirectional models with shifted logits: Dream's own, Fast-dLLM's for Dream, RND1's."""

import torch

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import NOTHING_HELD, Drawn, Held, Sampling
from tests.numerics.authors.forwards import Kept, begin, best_first, full
from tests.numerics.reference_words import gumbel_of_position, uniform_of_position


def dream_sampling(request: Request, held: Held = NOTHING_HELD) -> Sampling:
    """As in Dream's sample_tokens: top_p before top_k, at temperature 0 too."""
    return Sampling(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        is_filtered=True,
        has_top_p_first=True,
        filters_greedy=True,
        held=held,
    )


def dream(
    model: Transformer,
    request: Request,
    *,
    steps: int | None = None,
    alg: str = "entropy",
    alg_temp: float = 0.0,
    eps: float = 1e-3,
) -> list[int]:
    """Dream (arXiv 2508.15487, generation_utils.py): no blocks, a full forward in each of `steps`
    steps (None: as many as new tokens), commits by a time grid from 1 to eps. A step whose whole
    number of commits is 0 is a forward all the same."""
    run = begin(model, request, dream_sampling(request))
    steps = steps or request.max_new_tokens
    grid = torch.linspace(1, eps, steps + 1)
    for step in range(steps):
        masked = run.masked(range(len(run.canvas)))
        if not masked:
            break
        drawn = run.draw(full(model, run.canvas), masked)
        is_last = step == steps - 1
        if alg == "origin":
            share = float(1 - grid[step + 1] / grid[step])
            chosen = [
                i for i in masked if is_last or uniform_of_position(request.seed, step, i) < share
            ]
        else:
            num_commits = len(masked)
            if not is_last:
                num_commits = int(torch.tensor(len(masked)) * (1 - grid[step + 1] / grid[step]))
            scores = {i: _score(drawn[i], alg) for i in masked}
            if alg_temp > 0 and alg == "maskgit_plus":
                scores = {i: drawn[i].confidence for i in masked}
            if alg_temp > 0:
                # Without replacement from softmax(score / alg_temp), by the Gumbel-top-k trick.
                scores = {
                    i: score / alg_temp + gumbel_of_position(request.seed, step, i)
                    for i, score in scores.items()
                }
            chosen = sorted(masked, key=lambda i: (-scores[i], i))[:num_commits]
        run.commit({i: drawn[i].word for i in chosen})
    return run.generated()


def _score(drawn: Drawn, alg: str) -> float:
    if alg == "maskgit_plus":
        return -drawn.doubt
    if alg == "topk_margin":
        return -drawn.margin_doubt
    assert alg == "entropy", alg
    return -drawn.entropy


def fast_dllm_dream(
    model: Transformer,
    request: Request,
    *,
    block_length: int,
    cache: str,
    threshold: float,
    held: Held = NOTHING_HELD,
) -> list[int]:
    """Fast-dLLM for Dream (arXiv 2505.22618, generation_utils_block.py): of the full forward that
    opens a block only its first position commits, whatever its confidence; after that, the
    threshold decides. With `none`, which their code has not, every forward computes the whole
    canvas."""
    run = begin(model, request, dream_sampling(request, held))
    whole = range(len(run.canvas))
    kept = Kept(model, len(run.canvas))
    for start in range(len(request.prompt_ids), whole.stop, block_length):
        block = range(start, min(start + block_length, whole.stop))
        later = {"none": whole, "prefix": range(start, whole.stop), "dual": block}[cache]
        first = run.draw_at(start, kept.forward(run.canvas, whole)[start])
        run.commit({start: first.word})
        while run.masked(block):
            drawn = run.draw(kept.forward(run.canvas, later), run.masked(block))
            best = best_first(drawn)[0]
            run.commit(
                {i: drawn[i].word for i in drawn if i == best or drawn[i].confidence >= threshold}
            )
    return run.generated()


def rnd1(model: Transformer, request: Request, *, steps: int | None = None) -> list[int]:
    """RND1 (sampling.py): no blocks; after step k of S, floor(M (S - k) / S) of M masks are kept,
    those of the highest entropy; their code multiplies in float32. Filters: top_k first; they apply
    to greedy runs too, which are theirs with temperature 1 and `greedy`. Their M is one less than
    the number of new tokens, and the canvas ends with a padding token: a place that is kept for an
    EOS, and stays empty."""
    sampling = Sampling(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        is_filtered=True,
        filters_greedy=True,
    )
    run = begin(model, request, sampling)
    num_masked = request.max_new_tokens
    steps = steps or num_masked
    for step in range(steps - 1, -1, -1):
        masked = run.masked(range(len(run.canvas)))
        if not masked:
            break
        drawn = run.draw(full(model, run.canvas), masked)
        order = sorted(masked, key=lambda i: (drawn[i].entropy, i))
        num_kept = int(torch.tensor(num_masked) * (step / steps))
        run.commit({i: drawn[i].word for i in order[: len(order) - num_kept]})
    return run.generated()
