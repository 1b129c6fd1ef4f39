"""Loops of models with block-causal attention and logits in place: LLaDA2.0, LLaDA2.1, SDAR, TraDo,
DreamReasoner, Stable-DiffCoder.

Their authors keep K and V of finished blocks. That is exact, so every forward here computes all
that comes before the block again.
"""

from collections.abc import Iterator

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import NOTHING_HELD, Held, Sampling
from tests.numerics.authors.forwards import Progress, Rows, begin, best_first, full, shares


def filtered_sampling(request: Request, held: Held = NOTHING_HELD) -> Sampling:
    """As in LLaDA2's and SDAR's code: top_k before top_p; at temperature 0 no filters."""
    return Sampling(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        is_filtered=True,
        held=held,
    )


def threshold_or_share(
    model: Transformer,
    request: Request,
    *,
    threshold: float,
    steps: int | None = None,
    held: Held = NOTHING_HELD,
) -> list[int]:
    """LLaDA2.0 (arXiv 2512.15745, generate), SDAR and TraDo (low_confidence_dynamic), and
    DreamReasoner. A block has `steps` steps (None: one for each of its positions), with n_t commits
    each by LLaDA's division. If at least n_t positions exceed the threshold, all of these commit;
    else the best n_t."""
    run = _begin(model, request, filtered_sampling(request, held))
    for block in _blocks(run):
        for num_commits in shares(len(block), steps or len(block)):
            if not run.masked(block):
                break
            drawn = run.draw(_rows(run, block), run.masked(block))
            above = [i for i in drawn if drawn[i].confidence > threshold]
            chosen = above if len(above) >= num_commits else best_first(drawn)[:num_commits]
            run.commit({i: drawn[i].word for i in chosen})
    return run.generated()


def static(model: Transformer, request: Request, *, steps: int | None = None) -> list[int]:
    """SDAR's low_confidence_static: the best n_t in every step, n_t from the length of the block.
    Where a block begins with the prompt's tail, there are fewer masks than that: theirs then writes
    over the prompt, and this loop stops at the last mask."""
    run = _begin(model, request, filtered_sampling(request))
    for block in _blocks(run):
        for num_commits in shares(len(block), steps or len(block)):
            if not run.masked(block):
                break
            drawn = run.draw(_rows(run, block), run.masked(block))
            run.commit({i: drawn[i].word for i in best_first(drawn)[:num_commits]})
    return run.generated()


def sequential(model: Transformer, request: Request) -> list[int]:
    """SDAR's `sequential` with a step for every position: from left to right."""
    run = _begin(model, request, filtered_sampling(request))
    for block in _blocks(run):
        while masked := run.masked(block):
            run.commit({masked[0]: run.draw_at(masked[0], _rows(run, block)[masked[0]]).word})
    return run.generated()


def entropy_bounded(
    model: Transformer, request: Request, *, bound: float, counts_own: bool
) -> list[int]:
    """The EB-sampler (arXiv 2505.24857): by rising entropy, the most positions whose entropies sum
    to a bound; at least one. With `counts_own` as in JetEngine for SDAR, where the sum stays below
    the bound with the position's own entropy; else, as in DiffusionGemma, the sum of those before
    it does not exceed the bound."""
    run = _begin(model, request, filtered_sampling(request))
    for block in _blocks(run):
        while run.masked(block):
            drawn = run.draw(_rows(run, block), run.masked(block))
            order = sorted(drawn, key=lambda i: (drawn[i].entropy, i))
            chosen = order[:1]
            for n in range(1, len(order)):
                before = sum(drawn[i].entropy for i in order[:n])
                own = drawn[order[n]].entropy
                if not (before + own < bound if counts_own else before <= bound):
                    break
                chosen.append(order[n])
            run.commit({i: drawn[i].word for i in chosen})
    return run.generated()


def edit(
    model: Transformer,
    request: Request,
    *,
    threshold: float,
    editing_threshold: float,
    max_post_steps: int = 16,
) -> list[int]:
    """LLaDA2.1 (generate). Masks above the threshold, or the best one, commit; a token that is not
    the prompt's gives way to another word above the editing threshold. After the last mask is gone
    at most `max_post_steps` more forwards; the block is done when one of them changes nothing."""
    run = _begin(model, request, filtered_sampling(request))
    num_prompt_tokens = len(request.prompt_ids)
    for block in _blocks(run):
        post_steps = 0
        while True:
            masked = run.masked(block)
            if not masked:
                post_steps += 1
            if post_steps > max_post_steps:
                break
            own = [i for i in block if i >= num_prompt_tokens]
            drawn = run.draw(_rows(run, block), own)
            changes: dict[int, int] = {}
            if masked:
                order = best_first({i: drawn[i] for i in masked})
                above = [i for i in masked if drawn[i].confidence > threshold]
                changes = {i: drawn[i].word for i in above or order[:1]}
            for i in own:
                is_other = i not in masked and drawn[i].word != run.canvas[i]
                if is_other and drawn[i].confidence > editing_threshold:
                    changes[i] = drawn[i].word
            run.commit(changes)
            if not masked and not changes:
                break
    return run.generated()


def stable_diffcoder(
    model: Transformer,
    request: Request,
    *,
    threshold: float | None,
    is_cut: bool = True,
) -> list[int]:
    """Stable-DiffCoder (generate_block): LLaDA's Gumbel noise and confidences at temperature 1;
    one commit a step or, with a threshold, all that are not below it and the best. `is_cut`: the
    canvas ends with the generation region, so the last block may be short; else it is whole, as in
    LLaDA2's and SDAR's code."""
    sampling = Sampling(temperature=request.temperature)
    run = begin(model, request, sampling) if is_cut else _begin(model, request, sampling)
    for block in _blocks(run):
        while run.masked(block):
            drawn = run.draw(_rows(run, block), run.masked(block))
            best = best_first(drawn)[0]
            chosen = [
                i
                for i, it in drawn.items()
                if i == best or (threshold is not None and it.confidence >= threshold)
            ]
            run.commit({i: drawn[i].word for i in chosen})
    return run.generated()


def dream_reasoner(model: Transformer, request: Request, *, threshold: float) -> list[int]:
    """DreamReasoner (generation_utils.py, low_confidence_dynamic): as SDAR, with as many steps as
    the block has positions. The last step commits all that is left. Filters: top_k first, at
    temperature 0 too."""
    sampling = Sampling(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        is_filtered=True,
        filters_greedy=True,
    )
    run = _begin(model, request, sampling)
    for block in _blocks(run):
        for step in range(len(block)):
            masked = run.masked(block)
            if not masked:
                break
            drawn = run.draw(_rows(run, block), masked)
            above = [i for i in drawn if drawn[i].confidence > threshold]
            chosen = above or best_first(drawn)[:1]
            if step == len(block) - 1:
                chosen = masked
            run.commit({i: drawn[i].word for i in chosen})
    return run.generated()


def _begin(model: Transformer, request: Request, sampling: Sampling) -> Progress:
    return begin(model, request, sampling, _length(model))


def _blocks(run: Progress) -> Iterator[range]:
    """Blocks at absolute multiples of the length, from that of the prompt's tail on."""
    length, num_tokens = _length(run.model), len(run.canvas)
    num_prefilled = len(run.request.prompt_ids) // length * length
    for start in range(num_prefilled, num_tokens, length):
        yield range(start, min(start + length, num_tokens))


def _rows(run: Progress, block: range) -> Rows:
    """Logits of the block, by a forward over it and all before it."""
    return full(run.model, run.canvas[: block.stop])


def _length(model: Transformer) -> int:
    assert model.config.block_length is not None, "the model is not block-causal"
    return model.config.block_length
