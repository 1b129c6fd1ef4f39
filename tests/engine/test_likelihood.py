"""The bound of the log-likelihood against its definition, with plain forwards.

The expectation over k and S equals the mean over all orders in which the tokens of an answer may be
committed one by one, of the sum of their log probabilities. So a short answer has an exact bound,
which is computed here without any draw.
"""

from itertools import permutations
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.likelihood import LikelihoodBound, Pair, Sampling, draws_of
from engine.model.transformer import Transformer
from tests.numerics.reference_model import DenseCache
from tests.tiny import MASK, tiny_llada2_model, tiny_model

MODELS: dict[str, Any] = {
    "bidirectional": tiny_model,
    "shifted": lambda: with_shift(tiny_model()),
    "block-causal": tiny_llada2_model,
    "block-causal, shifted": lambda: with_shift(tiny_llada2_model()),
}
PAIRS = [
    Pair([5, 9, 11], [3, 60, 21]),
    Pair([1, 2, 3, 4, 5, 6], [7, 9, 3, 22]),  # over two blocks of 8
    Pair([7] * 19, [30]),
    Pair([8, 13], [5, 5]),
]


def with_shift(model: Transformer) -> Transformer:
    from dataclasses import replace

    model.config = replace(model.config, is_shifted=True)
    return model


def engine_of(model: Transformer, **settings: Any) -> DiffusionEngine:
    cache = "dual" if model.config.block_length is None else "block_causal"
    config = EngineConfig(
        **{"max_sequences": 4, "iteration_tokens": 64, "cache_tokens": 256} | settings
    )
    policy = CACHE_POLICIES[cache]()
    return DiffusionEngine(model, config=config, decoding=Threshold(), cache=policy)


def log_p(
    model: Transformer,
    canvas: list[int],
    position: int,
    word: int,
    num_prompt: int,
    guidance: float,
) -> float:
    """log p of the word at a masked position of a whole canvas."""

    def hidden(tokens: list[int]) -> torch.Tensor:
        dense = DenseCache(model, len(tokens))
        dense.k.fill_(0), dense.v.fill_(0)  # a last block is cut: what it lacks is not attended to
        dense.sees_until = lambda at: min(DenseCache.sees_until(dense, at), len(tokens))  # type: ignore[method-assign]
        with torch.no_grad():
            embedded = model.embed.weight[tokens]
        return dense.forward(embedded, list(range(len(tokens))))[
            [position - model.config.is_shifted]
        ]

    with torch.no_grad():
        logits = model.logits(hidden(canvas))[0].double()
        if guidance:
            without = model.logits(hidden([MASK] * num_prompt + canvas[num_prompt:]))[0].double()
            logits = without + (guidance + 1) * (logits - without)
    return float(logits.log_softmax(0)[word])


def exact(model: Transformer, pair: Pair, guidance: float = 0.0) -> float:
    """The bound without draws: the mean over all orders."""
    whole, num_prompt = [*pair.prompt_ids, *pair.answer_ids], len(pair.prompt_ids)
    block = model.config.block_length or len(whole)
    total, start = 0.0, num_prompt
    while start < len(whole):
        end = min(len(whole), (start // block + 1) * block)
        orders = list(permutations(range(start, end)))
        for order in orders:
            canvas = [*whole[:start], *[MASK] * (end - start)]
            for position in order:
                word = whole[position]
                total += log_p(model, canvas, position, word, num_prompt, guidance) / len(orders)
                canvas[position] = word
        start = end
    return total


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_is_its_definition(name: str) -> None:
    model = MODELS[name]()
    sampling = Sampling(num_samples=1200, strata=12)
    for pair, bound in zip(PAIRS, bounds_of(model, PAIRS, sampling), strict=True):
        wanted = exact(model, pair)
        assert abs(bound.value - wanted) < 4.5 * bound.error + 1e-3
        assert bound.error < 0.05 * abs(wanted)


def test_of_one_token_it_is_the_log_likelihood() -> None:
    model = tiny_model()
    pair = Pair([7] * 19, [30])
    (bound,) = bounds_of(model, [pair], Sampling(num_samples=128))
    assert bound.value == pytest.approx(exact(model, pair), abs=1e-5)
    assert bound.error == 0


def test_with_guidance() -> None:
    model = tiny_model()
    for pair, bound in zip(
        PAIRS, bounds_of(model, PAIRS, Sampling(num_samples=800, guidance=0.7)), strict=True
    ):
        assert abs(bound.value - exact(model, pair, 0.7)) < 4.5 * bound.error + 1e-3


def bounds_of(model: Transformer, pairs: list[Pair], sampling: Sampling, **settings: Any) -> Any:
    return list(LikelihoodBound(engine_of(model, **settings), sampling).bounds(pairs))


def test_a_bound_does_not_depend_on_neighbours_or_the_batch() -> None:
    model, sampling = tiny_model(), Sampling(num_samples=20)
    together = bounds_of(model, PAIRS, sampling)
    backwards = bounds_of(model, PAIRS[::-1], sampling, iteration_tokens=999, logits_bytes=2**14)
    for pair, one, other in zip(PAIRS, together, backwards[::-1], strict=True):
        (alone,) = bounds_of(model, [pair], sampling, iteration_tokens=1, cache_tokens=32)
        assert alone == pytest.approx(one, abs=1e-5)
        assert alone == pytest.approx(other, abs=1e-5)
    assert bounds_of(model, [], sampling) == []
    others = bounds_of(model, PAIRS, Sampling(num_samples=20, seed=1))
    assert others[0] != together[0]
    assert others[2] == together[2], "one token: nothing is drawn"


def test_the_engine_generates_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound leaves nothing behind in the pages or the canvases."""
    from tests.tiny import mixed_requests

    model = tiny_model()
    engine = engine_of(model)
    wanted = sorted(engine.results(mixed_requests(4)), key=lambda its: str(its.request_id))
    list(LikelihoodBound(engine, Sampling(num_samples=4)).bounds(PAIRS))
    again = sorted(engine.results(mixed_requests(4)), key=lambda its: str(its.request_id))
    assert [its.token_ids for its in again] == [its.token_ids for its in wanted]


@pytest.mark.parametrize(("length", "strata"), [(2, 12), (3, 16), (5, 4), (9, 16)])
def test_every_size_is_as_likely(length: int, strata: int) -> None:
    draw, count = np.random.Generator(np.random.Philox(5)), 20000
    sizes = [its.size for its in draws_of(length, Sampling(num_samples=count, strata=strata), draw)]
    shares = np.bincount(sizes, minlength=length + 1)[1:] / count
    # The draws of one group go together, so the spread is at most that of whole groups.
    spread = (1 / length * (1 - 1 / length) / (count / strata)) ** 0.5
    assert abs(shares - 1 / length).max() < 4 * spread


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_draws_are_spread_over_all_sizes(length: int) -> None:
    draw = np.random.Generator(np.random.Philox(3))
    sets = list(draws_of(length, Sampling(num_samples=6 * length, strata=length), draw))
    assert len(sets) == (1 if length == 1 else 6 * length)
    for first in range(0, len(sets) - length + 1, length):
        sizes = sorted(its.size for its in sets[first : first + length])
        assert sizes == list(range(1, length + 1)), "every size once in each stratified group"
    for its in sets:
        assert (np.diff(its) > 0).all()
        assert its[0] >= 0 and its[-1] < length  # noqa: PT018
    if length == 40:
        shares = np.bincount(np.concatenate(sets), minlength=length) / len(sets)
        spread = (0.5 * 0.5 / len(sets)) ** 0.5
        assert abs(shares - (length + 1) / (2 * length)).max() < 5 * spread, "no place is preferred"


def test_a_bound_of_a_certain_model_is_not_infinite() -> None:
    """float32 logits far apart: log p of the best word rounds to 0, never above."""
    model = tiny_model()
    with torch.no_grad():
        model.head.weight.mul_(400.0)  # type: ignore[operator]
    (bound,) = bounds_of(model, [PAIRS[0]], Sampling(num_samples=8))
    assert -1e6 < bound.value <= 0
    assert log(2) > 0


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (Pair([1], []), "at least one token"),
        (Pair([1] * 200, [1] * 100), "context of 256"),
        (Pair([1] * 100, [1] * 100), "engine.cache_tokens"),
        (Pair([1], [10**6]), "vocabulary"),
    ],
)
def test_pairs_that_have_no_bound_are_refused(pair: Pair, said: str) -> None:
    with pytest.raises(UserError, match=said):
        bounds_of(tiny_model(), [pair], Sampling(), cache_tokens=128)


def test_a_shifted_model_needs_a_prompt() -> None:
    with pytest.raises(UserError, match="predicts a token from the one before"):
        bounds_of(with_shift(tiny_model()), [Pair([], [1, 2])], Sampling())
    (bound,) = bounds_of(tiny_model(), [Pair([], [1, 2])], Sampling(num_samples=4))
    assert bound.value < 0
    with pytest.raises(UserError, match="num_samples=0"):
        Sampling(num_samples=0)


@pytest.mark.parametrize("name", ["bidirectional", "block-causal"])
def test_the_fused_kernels_give_the_same_bounds(name: str) -> None:
    """In Triton's interpreter."""
    pytest.importorskip("triton")
    model, sampling = MODELS[name](), Sampling(num_samples=3, strata=3)
    wanted = bounds_of(model, PAIRS[:2], sampling)
    found = bounds_of(MODELS[name](), PAIRS[:2], sampling, kernels="triton")
    for one, other in zip(wanted, found, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
