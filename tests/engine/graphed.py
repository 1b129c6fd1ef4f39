"""Engines with graphs beside eager ones."""

from dataclasses import replace
from typing import Any

from engine.engine import DiffusionEngine
from engine.model.transformer import Transformer
from engine.request import Request, Result
from tests.engine.tape import TapeCapture, use_graphs
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 12
# With a short context, because the attention that a tape can hold gathers all of it per token.
MODELS = {
    "bidirectional": tiny_model(max_sequence_length=112),
    "block-causal": tiny_llada2_model(block_length=BLOCK, max_position_embeddings=112),
}
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}


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
    use_graphs(engine, capture)
    return eager, engine, capture


def results_of(engine: DiffusionEngine, requests: list[Request]) -> dict[Any, Result]:
    return {result.request_id: result for result in engine.results(requests)}


def assert_results_of_eager(engine: DiffusionEngine, eager: DiffusionEngine) -> None:
    requests = requests_of_both_kinds(8)
    assert_same(results_of(engine, requests), results_of(eager, requests), "graphs")
