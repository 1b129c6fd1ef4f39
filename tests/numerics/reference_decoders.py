"""Decoding strategies as the papers write them: which positions commit to which words?

Each strategy is a function of a View (what one forward showed of the active block), with its
settings as keyword arguments. It returns the proposals to write into the canvas, by position.
Every strategy but `dream` and a `fixed` that spreads commits at least its best masked position.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.numerics.reference_dream import dream
from tests.numerics.reference_view import Commits, View, best_first, in_order, is_last
from tests.numerics.reference_words import Floats, entropy, softmax

MAX_POST_ITERATIONS = 16


def fixed(
    view: View,
    *,
    iterations_per_block: int | None = None,
    order: str = "confidence",
    remainder: str = "first",
) -> Commits:
    """The same number of commits in every iteration; the first ones also take the remainder (LLaDA,
    arXiv 2502.09992). The orders `margin` and `entropy` are Dream's (arXiv 2508.15487). With
    `spread`, RND1's: a share of all masks is kept, the smaller the fewer iterations are left."""
    proposals = view.propose()
    ranked = in_order(view, proposals, order)
    num_masked = view.num_masked_at_block_start
    if remainder == "spread":
        length = iterations_per_block or num_masked
        left = max(length - 1 - view.iteration_in_block, 0)
        num_kept = int(np.float32(num_masked) * np.float32(left / length))
        return {i: proposals[i] for i in ranked[: len(ranked) - num_kept]}
    share, rest = divmod(num_masked, iterations_per_block or num_masked)
    num_commits = max(1, share + (view.iteration_in_block < rest))
    return {i: proposals[i] for i in ranked[:num_commits]}


def threshold(
    view: View, *, threshold: float = 0.9, iterations_per_block: int | None = None
) -> Commits:
    """All positions that reach the threshold, and the best (Fast-dLLM, arXiv 2505.22618). With
    `iterations_per_block`: if fewer reach it than LLaDA's schedule commits of a whole block, as
    many of the best (LLaDA2.0, arXiv 2512.15745; SDAR)."""
    proposals = view.propose()
    if iterations_per_block is None:
        return _sure_enough(view, proposals, view.relaxed(threshold))
    share, rest = divmod(view.block_length, iterations_per_block)
    num_commits = max(1, share + (view.iteration_in_block < rest))
    least = view.relaxed(threshold)
    sure = [i for i in view.masked if proposals[i].confidence >= least]
    if len(sure) < num_commits:
        sure = best_first(view.masked, proposals)[:num_commits]
    return {i: proposals[i] for i in sure}


def factor(view: View, *, factor: float = 1.0, form: str = "paper") -> Commits:
    """The longest list of positions, best first, whose n-th satisfies (n + 1)(1 - c) <= factor. For
    factor 1, the product of the marginals then has the same argmax as the joint distribution
    (Fast-dLLM, arXiv 2505.22618). Its later code (`form="code"`) takes the number of positions
    differently."""
    proposals = view.propose()
    if form == "code":
        ranked = best_first(view.masked, proposals)
        return {i: proposals[i] for i in ranked[: _number_in_the_code(ranked, proposals, factor)]}
    chosen: list[int] = []
    for n, i in enumerate(best_first(view.masked, proposals), start=1):
        if n > 1 and (n + 1) * proposals[i].doubt > factor:
            break
        chosen.append(i)
    return {i: proposals[i] for i in chosen}


def _number_in_the_code(ranked: list[int], proposals: Commits, factor: float) -> int:
    """The index of the first position that is less sure than its bound, or of the last one if there
    is none; one more if it is the last one (but for a word that is to commit last)."""
    index = len(ranked) - 1
    for k, i in enumerate(ranked[1:], start=1):
        if proposals[i].doubt > factor / (k + 2):
            index = k
            break
    if index < len(ranked) - 1 or (index > 0 and is_last(proposals[ranked[index]])):
        return index
    return index + 1


def hierarchical(view: View, *, threshold: float = 0.9, low_threshold: float = 0.4) -> Commits:
    """All positions that reach the threshold, the best, and the best of every contiguous run of
    masks that reaches the low threshold (dInfer, arXiv 2510.08666)."""
    proposals = view.propose()
    commits = _sure_enough(view, proposals, view.relaxed(threshold))
    runs: list[list[int]] = []
    for i in view.masked:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    for run in runs:
        best = best_first(run, proposals)[0]
        if proposals[best].confidence >= low_threshold:
            commits[best] = proposals[best]
    return commits


def credit(
    view: View,
    *,
    threshold: float = 0.9,
    alpha: float = 0.7,
    gamma: float = 0.2,
    beta: float = 0.8,
) -> Commits:
    """Threshold decoding with raised logits for words that have been the likeliest of their
    position in earlier iterations (dInfer, arXiv 2510.08666)."""
    credits: dict[int, Floats] = view.memory.setdefault("credits", {})
    raised: dict[int, Floats] = {}
    for i in view.masked:
        logits = view.logits[i]
        likeliest = int(logits.argmax())
        credits[i] = beta * credits.get(i, np.zeros(len(logits)))
        credits[i][likeliest] += softmax(logits)[likeliest] ** gamma
        raised[i] = (logits + alpha * np.log(1 + credits[i])).astype(np.float32)
    commits = _sure_enough(view, view.propose(raised), view.relaxed(threshold))
    return {
        i: replace(proposal, confidence=float(softmax(view.logits[i])[proposal.word]))
        for i, proposal in commits.items()
    }


def entropy_bound(view: View, *, bound: float = 0.35, counts_own: bool = False) -> Commits:
    """The longest list of positions, least entropy first, whose entropies without the last sum to
    at most the bound. This bounds their mutual information (EB-sampler, arXiv 2505.24857). With
    `counts_own`, all their entropies sum to less than the bound, or the list is of one position
    (JetEngine)."""
    proposals = view.propose()
    entropies = {
        i: math.inf if is_last(proposals[i]) else entropy(view.logits[i]) for i in view.masked
    }
    chosen: list[int] = []
    before = 0.0
    for i in sorted(view.masked, key=lambda i: (entropies[i], i)):
        is_beyond = before + entropies[i] >= bound if counts_own else before > bound
        if chosen and (is_beyond or is_last(proposals[i])):
            break
        chosen.append(i)
        before += entropies[i]
    return {i: proposals[i] for i in chosen}


def klass(
    view: View,
    *,
    threshold: float = 0.9,
    kl_threshold: float = 0.01,
    num_stable: int = 2,
    top_k: int = 32,
) -> Commits:
    """All positions that reach the threshold and whose distribution has hardly changed for
    `num_stable` iterations; if there is none, the best (KLASS, arXiv 2511.05664). Of the
    distribution of the iteration before, only the likeliest words are kept; all others count as one
    event."""
    kept: dict[int, tuple[list[int], Floats]] = view.memory.setdefault("kept", {})
    stable: dict[int, int] = view.memory.setdefault("stable", {})
    for i in view.masked:
        now = softmax(view.logits[i])
        is_close = False
        if i in kept:
            words, before = kept[i]
            is_close = _kl(_coarse(now, words), before) < kl_threshold
        stable[i] = stable[i] + 1 if is_close else 0
        words = sorted(range(len(now)), key=lambda word: (-now[word], word))[:top_k]
        kept[i] = words, _coarse(now, words)
    proposals = view.propose()
    least = view.relaxed(threshold)
    is_ready = {
        i: proposals[i].confidence >= least and stable[i] >= num_stable for i in view.masked
    }
    ready = [i for i in view.masked if is_ready[i]]
    return {i: proposals[i] for i in ready or best_first(view.masked, proposals)[:1]}


def edit(
    view: View,
    *,
    threshold: float = 0.7,
    edit_threshold: float = 0.5,
    max_post_iterations: int = MAX_POST_ITERATIONS,
) -> Commits:
    """All masked positions that reach the threshold, and the best. A committed token is replaced by
    another word that reaches `edit_threshold` (LLaDA2.1, JointThreshold). `is_finished` says when a
    block ends."""
    proposals = view.propose()
    commits: Commits = {}
    if view.masked:
        commits = _sure_enough(view, proposals, view.relaxed(threshold))
    else:
        view.memory["num_post_iterations"] = view.memory.get("num_post_iterations", 0) + 1
    for i, proposal in proposals.items():
        is_other = i not in view.masked and proposal.word != view.tokens[i]
        if is_other and proposal.confidence >= edit_threshold:
            commits[i] = proposal
    return commits


def is_finished(
    decoding: dict[str, Any], view: View, commits: Commits, num_masked_after: int
) -> bool:
    """Whether the block has no mask left. `edit` then continues until a forward that began without
    masks changes nothing, or until there have been `max_post_iterations` of such forwards."""
    if num_masked_after or decoding["name"] != "edit":
        return num_masked_after == 0
    is_settled = not view.masked and not commits
    most = decoding.get("max_post_iterations", MAX_POST_ITERATIONS)
    return is_settled or view.memory.get("num_post_iterations", 0) >= most


def _sure_enough(view: View, proposals: Commits, threshold: float) -> Commits:
    """The masked positions whose confidence reaches the threshold, and the best."""
    best = best_first(view.masked, proposals)[0]
    chosen = [i for i in view.masked if i == best or proposals[i].confidence >= threshold]
    return {i: proposals[i] for i in chosen}


def _coarse(probabilities: Floats, words: list[int]) -> Floats:
    """The probabilities of the given words and of all others together, each at least 1e-9."""
    others = np.delete(probabilities, words).sum()
    return np.maximum([*probabilities[words], others], 1e-9)


def _kl(now: Floats, before: Floats) -> float:
    return float((now * np.log(now / before)).sum())


DECODERS: dict[str, Callable[..., Commits]] = {
    "fixed": fixed,
    "threshold": threshold,
    "factor": factor,
    "hierarchical": hierarchical,
    "credit": credit,
    "entropy_bound": entropy_bound,
    "klass": klass,
    "edit": edit,
    "dream": dream,
}
