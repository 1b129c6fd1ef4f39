"""Chooses a word from the logits of one position: probabilities in float64, draws by a hash."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Proposal:
    word: int
    confidence: float
    """Probability of the word."""
    doubt: float
    """Probability of all other words together. Ranks positions even where their confidence rounds
    to 1."""


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def entropy(logits: Floats) -> float:
    """-sum p log p, written as log(sum e^d) - sum p d with d the difference to the largest logit;
    precise even if the largest probability rounds to 1."""
    distances = np.sort(logits.astype(np.float64) - logits.max())[::-1]
    distances = distances[np.isfinite(distances)]
    others = np.exp(distances[1:])
    return float(np.log1p(others.sum()) - (others * distances[1:]).sum() / (1 + others.sum()))


def lead_doubt(logits: Floats) -> float:
    """1 - (p1 - p2) for the two likeliest words, computed as (sum of all but p1) + p2."""
    falling = np.sort(softmax(logits))[::-1]
    return float(falling[1:].sum() + falling[1])


def propose(
    logits: Floats, *, temperature: float, seed: int, iteration: int, position: int
) -> Proposal:
    """The likeliest word, or a draw from softmax(logits / temperature) by the Gumbel-max trick."""
    scores = logits
    if temperature > 0:
        noise = gumbel(seed, iteration, position, len(logits))
        scores = logits + np.float32(temperature) * noise
    word = int(scores.argmax())
    probabilities = softmax(logits)
    return Proposal(word, float(probabilities[word]), float(np.delete(probabilities, word).sum()))


def gumbel(seed: int, iteration: int, position: int, num_words: int) -> NDArray[np.float32]:
    """-log(-log(u)) with u a hash of (seed, iteration, position, word), in unsigned integers."""
    bits = _hash(seed, iteration, position, np.arange(num_words, dtype=np.uint64))
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**52
    return (-np.log(-np.log(uniform))).astype(np.float32)


def random_order(seed: int, iteration: int, position: int) -> int:
    """A hash of (seed, iteration, position); the position with the largest hash comes first."""
    no_word = np.array([0x7FFFFFFFFFFFFFFF], dtype=np.uint64)
    return int(_hash(seed, iteration, position, no_word)[0])


def uniform_of_position(seed: int, iteration: int, position: int) -> float:
    """random_order as a number in [0, 1)."""
    return random_order(seed, iteration, position) / 2.0**52


def gumbel_of_position(seed: int, iteration: int, position: int) -> float:
    """Gumbel noise of the position as a whole."""
    uniform = (random_order(seed, iteration, position) + 0.5) / 2.0**52
    return float(-np.log(-np.log(uniform)))


def _hash(
    seed: int, iteration: int, position: int, words: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """52 bits for each word."""
    with np.errstate(over="ignore"):
        key = _splitmix(np.array([seed], dtype=np.uint64))
        key = _splitmix(key ^ np.uint64(iteration))
        key = _splitmix(key ^ np.uint64(position))
        return _splitmix(key ^ words) >> np.uint64(12)


def _splitmix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
