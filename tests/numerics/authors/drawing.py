"""Draws a word from the logits of one position as the authors' codes do: temperature, top_k, top_p,
and the probability that counts as confidence. Probabilities are float64."""

from dataclasses import dataclass

import numpy as np

from tests.numerics.reference_words import Floats, entropy, gumbel, lead_doubt, softmax


@dataclass(frozen=True, kw_only=True)
class Held:
    """Words that are held back, in the forms of LLaDA's evaluation (arXiv 2502.09992, appendix B.4;
    generate.py)."""

    never: tuple[int, ...] = ()
    """`logits_eos_inf`: their logits are -inf before anything else."""
    last: tuple[int, ...] = ()
    """`confidence_eos_eot_inf` as it is meant: a position that proposes one of these has the
    confidence -inf, and so commits last."""
    uncounted: tuple[int, ...] = ()
    """The same as it is coded, at temperature 0: the softmax of confidences reads logits in which
    these are -inf, after the words are chosen."""


NOTHING_HELD = Held()


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A user's settings, and the order in which a family's code applies them."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    is_filtered: bool = False
    """Whether confidences are taken after temperature and filters; else at temperature 1, over all
    words."""
    has_top_p_first: bool = False
    filters_greedy: bool = False
    """Whether the filters also apply at temperature 0."""
    held: Held = NOTHING_HELD


@dataclass(frozen=True)
class Drawn:
    word: int
    confidence: float
    """Probability of the word."""
    doubt: float
    """Probability of all other words together: ranks positions whose confidence rounds to 1."""
    entropy: float
    """Entropy of the probabilities that the confidence is taken from."""
    margin_doubt: float
    """1 - (p1 - p2) of the two likeliest words of these probabilities."""


def draw(logits: Floats, sampling: Sampling, *, seed: int, iteration: int, position: int) -> Drawn:
    """The likeliest word at temperature 0, else the word with the highest sum of filtered logit and
    Gumbel noise, which is a draw from their softmax."""
    is_drawn, held = sampling.temperature > 0, sampling.held
    logits = without(logits, held.never)
    narrowed = logits.astype(np.float64)
    if is_drawn:
        narrowed = narrowed / sampling.temperature
    if is_drawn or sampling.filters_greedy:
        narrowed = filtered(narrowed, sampling)
    scores = narrowed
    if is_drawn:
        scores = narrowed + gumbel(seed, iteration, position, len(logits))
    word = int(scores.argmax())
    seen = narrowed if sampling.is_filtered else logits
    if word in held.last:
        return Drawn(word, -np.inf, 2.0, entropy(seen), 2.0)
    probabilities = softmax(without(seen, held.uncounted))
    return Drawn(
        word,
        float(probabilities[word]),
        float(np.delete(probabilities, word).sum()),
        entropy(seen),
        lead_doubt(seen),
    )


def without(logits: Floats, words: tuple[int, ...]) -> Floats:
    """A copy with -inf at these words."""
    changed = logits.copy()
    changed[list(words)] = -np.inf
    return changed


def filtered(logits: Floats, sampling: Sampling) -> Floats:
    """The logits with -inf at the words that the filters drop."""
    steps = [_top_k, _top_p]
    for step in reversed(steps) if sampling.has_top_p_first else steps:
        logits = step(logits, sampling)
    return logits


def _top_k(logits: Floats, sampling: Sampling) -> Floats:
    """Drops the words below the k-th largest logit. Words that tie with it stay."""
    if sampling.top_k is None or sampling.top_k >= len(logits):
        return logits
    least = sorted(logits, reverse=True)[sampling.top_k - 1]
    return np.array([z if z >= least else -np.inf for z in logits])


def _top_p(logits: Floats, sampling: Sampling) -> Floats:
    """Keeps the likeliest words until their probabilities exceed top_p, with the word that crosses
    it."""
    if sampling.top_p is None or sampling.top_p >= 1:
        return logits
    probabilities = softmax(logits)
    kept = np.full(len(logits), -np.inf)
    total = 0.0
    for word in sorted(range(len(logits)), key=lambda word: (-logits[word], word)):
        kept[word] = logits[word]
        total += probabilities[word]
        if total > sampling.top_p:
            break
    return kept
