"""Forwards that are captured and replayed generate the tokens of eager ones.

Captured by the stand-in of tests/engine/tape.py, which knows a forward only by what it launched for
a batch of padding.
"""

from dataclasses import replace
from typing import Any

import pytest

from engine.engine import DiffusionEngine
from engine.graphs import Graphs
from engine.model.transformer import Transformer
from engine.request import Request, Result
from tests.engine.tape import TapeCapture
from tests.numerics.combinations import ATTENTIONS, Combination, legal
from tests.numerics.exact import assert_same
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 12
MODELS = {"bidirectional": tiny_model(), "block-causal": tiny_llada2_model(block_length=BLOCK)}
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
COMBINATIONS = [
    pytest.param(attention, combination, id=f"{attention}-{combination}")
    for attention in ATTENTIONS
    for combination in legal(MODELS[attention].config, SOFT)
]


def requests_of_both_kinds(count: int) -> list[Request]:
    """Greedy and sampled requests, in turns."""
    return [
        replace(request, temperature=0.7 * (request.request_id % 2))
        for request in mixed_requests(count, seed=3)
    ]


def engines(
    model: Transformer, combination: Combination, **settings: Any
) -> tuple[DiffusionEngine, DiffusionEngine, TapeCapture]:
    """An eager engine, and one with graphs and its capture."""
    settings = {"block_length": BLOCK, "max_sequences": 3, "cache_tokens": 400, **settings}
    eager, engine = (combination.engine(model, **settings) for _ in range(2))
    capture = TapeCapture()
    engine.forwards.graphs = Graphs(engine.forwards.device_part, engine.forwards.sender, capture)
    return eager, engine, capture


def results_of(engine: DiffusionEngine, requests: list[Request]) -> dict[Any, Result]:
    return {result.request_id: result for result in engine.results(requests)}


@pytest.mark.parametrize(("attention", "combination"), COMBINATIONS)
def test_graphs_generate_the_tokens_of_eager_forwards(
    attention: str, combination: Combination
) -> None:
    """Sequences join and leave: there are twice as many as are live at once."""
    requests = requests_of_both_kinds(6)
    eager, engine, capture = engines(MODELS[attention], combination)
    assert_same(results_of(engine, requests), results_of(eager, requests), "graphs")
    assert capture.num_replays > engine.stats.num_iterations // 4
    assert engine.stats.num_iterations == eager.stats.num_iterations
    assert engine.stats.num_query_tokens == eager.stats.num_query_tokens
    assert engine.stats.num_padding_tokens > 0
