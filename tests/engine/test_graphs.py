"""Forwards that are captured and replayed generate the tokens of eager ones.

Captured by the stand-in of tests/engine/tape.py, which knows a forward only by what it launched for
a batch of padding.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.model.transformer import Transformer
from tests.engine.graphed import (
    BLOCK,
    MODELS,
    SOFT,
    assert_results_of_eager,
    engines,
    requests_of_both_kinds,
    results_of,
)
from tests.numerics.combinations import ATTENTIONS, Combination, legal
from tests.numerics.exact import assert_same


def captured_otherwise(attention: str) -> Iterator[Combination]:
    """Every strategy, without and with soft iteration: they decide what is launched. The policies,
    which decide only about shapes, take turns."""
    found: dict[tuple[str, bool], list[Combination]] = {}
    for combination in legal(MODELS[attention].config, SOFT):
        key = (combination.decoding["name"], combination.soft is None)
        found.setdefault(key, []).append(combination)
    for number, with_each_policy in enumerate(found.values()):
        num_policies = len(with_each_policy)
        yield with_each_policy[(number + number // num_policies) % num_policies]


COMBINATIONS = [
    pytest.param(attention, combination, id=f"{attention}-{combination}")
    for attention in ATTENTIONS
    for combination in captured_otherwise(attention)
]


def test_every_policy_and_strategy_is_in_one_of_the_combinations() -> None:
    combinations = [each.values[1] for each in COMBINATIONS]
    assert {each.cache["name"] for each in combinations} == set(CACHE_POLICIES)
    assert {each.decoding["name"] for each in combinations} == set(DECODERS)


@pytest.mark.parametrize(("attention", "combination"), COMBINATIONS)
def test_graphs_generate_the_tokens_of_eager_forwards(
    attention: str, combination: Combination
) -> None:
    """Sequences join and leave: there are more than are live at once."""
    requests = requests_of_both_kinds(5)
    eager, engine, capture = engines(MODELS[attention], combination)
    assert_same(results_of(engine, requests), results_of(eager, requests), "graphs")
    assert capture.num_replays > engine.stats.num_iterations // 4
    assert engine.stats.num_iterations == eager.stats.num_iterations
    assert engine.stats.num_query_tokens == eager.stats.num_query_tokens
    assert engine.stats.num_padding_tokens > 0


def test_a_schedule_beside_the_threshold() -> None:
    decoding = {"name": "threshold", "threshold": 0.8, "iterations_per_block": 5}
    eager, engine, capture = engines(
        MODELS["block-causal"], Combination({"name": "block_causal"}, decoding)
    )
    assert_results_of_eager(engine, eager)
    assert capture.num_replays > engine.stats.num_iterations // 4


@pytest.mark.parametrize(
    ("cache", "decoding"), [("dual", "threshold"), ("prefix", "edit"), ("dkv", "threshold")]
)
def test_soft_iteration_over_the_canvas(cache: str, decoding: str) -> None:
    """Forwards with and without softened positions behind the block have different graphs."""
    combination = Combination({"name": cache}, {"name": decoding}, {**SOFT, "scope": "canvas"})
    eager, engine, capture = engines(MODELS["bidirectional"], combination)
    assert_results_of_eager(engine, eager)
    assert capture.num_replays > engine.stats.num_iterations // 4
    softened = [shape.num_softened for shape in engine.forwards.graphs._graphs]
    assert any(softened)


def shifted(model: Transformer) -> Transformer:
    """The same weights, read as a model whose logits are those of the next position."""
    other = copy.deepcopy(model)
    other.config = replace(model.config, is_shifted=True)
    return other


@pytest.mark.parametrize(
    ("attention", "cache", "decoding", "block_length"),
    [
        ("bidirectional", "dual", "edit", BLOCK),
        ("bidirectional", "dkv", "klass", BLOCK),
        ("block-causal", "block_causal", "threshold", BLOCK),
        ("block-causal", "block_causal", "edit", BLOCK // 3),
    ],
)
def test_models_with_shifted_logits(
    attention: str, cache: str, decoding: str, block_length: int
) -> None:
    """The last one with blocks that are denoised in sub-blocks."""
    combination = Combination({"name": cache}, {"name": decoding})
    model = shifted(MODELS[attention])
    eager, engine, capture = engines(model, combination, block_length=block_length)
    assert_results_of_eager(engine, eager)
    assert capture.num_replays > engine.stats.num_iterations // 4
