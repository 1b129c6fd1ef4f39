"""Decoding strategies as the papers write them: which positions take which word.

Each is a function of a View, what one forward showed of the active block, with its settings as
keywords; it returns the proposals to write into the canvas, by position. Best first means: least
probability of all other words together, ties to the earlier position. Every strategy commits its
best masked position at least.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.numerics.reference_words import (
    Floats,
    Proposal,
    entropy,
    lead_doubt,
    propose,
    random_order,
    softmax,
)

Commits = dict[int, Proposal]

MAX_POST_ITERATIONS = 16


@dataclass(kw_only=True)
class View:
    logits: dict[int, Floats]
    """float32, by asked position; the mask's own is -inf, so that it is never proposed."""
    masked: list[int]
    """Ascending, and one at least but for `edit`."""
    tokens: dict[int, int]
    """What stands at the asked positions now, masks included."""
    num_masked_at_block_start: int
    iteration: int
    iteration_in_block: int
    temperature: float
    seed: int
    relaxation: float | None
    """With soft iteration, what the confidence threshold falls by from one forward to the next."""
    memory: dict[str, Any]
    """Kept from forward to forward, emptied when a block is entered."""

    def propose(self, logits: dict[int, Floats] | None = None) -> Commits:
        return {
            i: propose(
                z,
                temperature=self.temperature,
                seed=self.seed,
                iteration=self.iteration,
                position=i,
            )
            for i, z in (logits or self.logits).items()
        }

    def relaxed(self, threshold: float) -> float:
        """max(threshold, 1 - relaxation * t): strict at first (dInfer, arXiv 2510.08666)."""
        if self.relaxation is None:
            return threshold
        return max(threshold, 1 - self.relaxation * self.iteration)


def best_first(positions: list[int], proposals: Commits) -> list[int]:
    return sorted(positions, key=lambda i: (proposals[i].doubt, i))


def fixed(
    view: View, *, iterations_per_block: int | None = None, order: str = "confidence"
) -> Commits:
    """The same number in every iteration, the remainder in the first ones (LLaDA, arXiv
    2502.09992); orders `margin` and `entropy` as in Dream (arXiv 2508.15487)."""
    proposals = view.propose()
    keys: dict[str, Callable[[int], float]] = {
        "confidence": lambda i: proposals[i].doubt,
        "margin": lambda i: lead_doubt(view.logits[i]),
        "entropy": lambda i: entropy(view.logits[i]),
        "random": lambda i: -random_order(view.seed, view.iteration, i),
    }
    ranked = sorted(view.masked, key=lambda i: (keys[order](i), i))
    num_masked = view.num_masked_at_block_start
    share, rest = divmod(num_masked, iterations_per_block or num_masked)
    num_commits = max(1, share + (view.iteration_in_block < rest))
    return {i: proposals[i] for i in ranked[:num_commits]}


def threshold(view: View, *, threshold: float = 0.9) -> Commits:
    """All that are sure enough, and the best (Fast-dLLM, arXiv 2505.22618)."""
    return _sure_enough(view, view.propose(), view.relaxed(threshold))


def factor(view: View, *, factor: float = 1.0) -> Commits:
    """The longest row, best first, whose n-th has (n + 1)(1 - c) <= factor: for factor 1 the
    product of the marginals then has the same argmax as the joint (Fast-dLLM, arXiv 2505.22618).
    """
    proposals = view.propose()
    chosen: list[int] = []
    for n, i in enumerate(best_first(view.masked, proposals), start=1):
        if n > 1 and (n + 1) * proposals[i].doubt > factor:
            break
        chosen.append(i)
    return {i: proposals[i] for i in chosen}


def hierarchical(view: View, *, threshold: float = 0.9, low_threshold: float = 0.4) -> Commits:
    """All that are sure enough, the best, and the best of every contiguous run of masks if its
    confidence is not low (dInfer, arXiv 2510.08666)."""
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
    """A word that has been the likeliest of its position for some iterations is believed more
    (dInfer, arXiv 2510.08666)."""
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


def entropy_bound(view: View, *, bound: float = 0.35) -> Commits:
    """The longest row, least entropy first, whose members but the last have together no more
    entropy than the bound, which bounds what their mutual information can be (EB-sampler, arXiv
    2505.24857)."""
    proposals = view.propose()
    entropies = {i: entropy(view.logits[i]) for i in view.masked}
    chosen: list[int] = []
    before = 0.0
    for i in sorted(view.masked, key=lambda i: (entropies[i], i)):
        if chosen and before > bound:
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
    """All that are sure enough and whose distribution has not moved for some iterations, or else
    the best (KLASS, arXiv 2511.05664). Of the distribution before, the likeliest words are kept,
    and all others are one event."""
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
    """All that are sure enough, and the best; and a committed token gives way to another word of
    enough confidence (LLaDA2.1, JointThreshold). When a block is finished: see `is_finished`."""
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
    """No mask left in the block. `edit` then goes on: until a forward that began without masks
    changes nothing, or for `max_post_iterations` of them."""
    if num_masked_after or decoding["name"] != "edit":
        return num_masked_after == 0
    is_settled = not view.masked and not commits
    most = decoding.get("max_post_iterations", MAX_POST_ITERATIONS)
    return is_settled or view.memory.get("num_post_iterations", 0) >= most


def _sure_enough(view: View, proposals: Commits, threshold: float) -> Commits:
    best = best_first(view.masked, proposals)[0]
    chosen = [i for i in view.masked if i == best or proposals[i].confidence >= threshold]
    return {i: proposals[i] for i in chosen}


def _coarse(probabilities: Floats, words: list[int]) -> Floats:
    """The probability of each of the words, and of all others together; 1e-9 at least."""
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
}
