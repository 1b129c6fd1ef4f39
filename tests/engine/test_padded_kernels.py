"""The Triton kernels on padded batches, as graphs run them, generate the tokens of plain torch.

In the interpreter on the CPU. Nothing is captured: a replay calls the forward again on the padded
batch, whose output memory begins as NaN.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.graphs import Graphs
from engine.request import Request
from tests.engine.tape import run_again
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import tiny_llada2_model, tiny_model

BLOCK = 12
MODELS = {
    "bidirectional": tiny_model(n_layers=1, max_sequence_length=40),
    "block-causal": tiny_llada2_model(
        block_length=BLOCK, num_hidden_layers=2, max_position_embeddings=48
    ),
}


@pytest.fixture
def empty_is_nan() -> Iterator[None]:
    """New memory holds NaN, or numbers that are no index."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("attention", "cache", "decoding"),
    [
        ("bidirectional", "dkv", "klass"),
        ("block-causal", "block_causal", "credit"),
    ],
)
@pytest.mark.usefixtures("empty_is_nan")
def test_padded_forwards_of_the_kernels(attention: str, cache: str, decoding: str) -> None:
    requests = [
        Request(
            request_id=i,
            prompt_ids=[3 + i] * (3 + 7 * i),
            max_new_tokens=6 + i,
            temperature=0.7 * (i % 2),
            seed=i,
        )
        for i in range(3)
    ]
    combination = Combination({"name": cache}, {"name": decoding})

    def results_of(**settings: Any) -> dict[Any, Any]:
        engine = combination.engine(
            MODELS[attention], block_length=BLOCK, max_sequences=2, cache_tokens=96, **settings
        )
        if settings["kernels"] == "triton":
            forwards = engine.forwards
            assert engine.runner.is_capturable
            forwards.graphs = Graphs(forwards.device_part, forwards.sender, run_again)
        results = {result.request_id: result for result in engine.results(requests)}
        assert (engine.stats.num_padding_tokens > 0) == (settings["kernels"] == "triton")
        return results

    assert_same(results_of(kernels="triton"), results_of(kernels="torch"), "padded kernels")
