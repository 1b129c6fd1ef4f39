"""Checks that the batched engine gives the results of the plain loops, however it batches."""

import random
from dataclasses import replace
from typing import Any

import pytest

from engine.model.transformer import Transformer
from engine.request import Request, Result
from tests.numerics.combinations import Combination


def assert_same(results: dict[Any, Result], expected: dict[Any, Result], what: str) -> None:
    """`results` equal `expected`, with mean confidences up to rounding. `what` names the case."""
    assert results.keys() == expected.keys()
    for i, result in results.items():
        want = replace(expected[i], mean_confidence=result.mean_confidence)
        assert result == want, f"request {i} differs with {what}"
        assert result.mean_confidence == pytest.approx(expected[i].mean_confidence, abs=1e-3)


def assert_exact(
    model: Transformer,
    combination: Combination,
    requests: list[Request],
    block_length: int,
    batch: int = 48,
) -> None:
    """The results of a large batch equal those of the plain loop. So do those of batches of one,
    and of another order with scarce pages and a small budget of query tokens."""

    def run(order: list[Request], **settings: int) -> dict[Any, Result]:
        return combination.run(model, order, block_length=block_length, **settings)

    batched = run(requests, max_sequences=batch)
    for request in requests:
        expected = combination.reference(model, request, block_length)
        result = batched[request.request_id]
        for name in ("token_ids", "num_iterations", "num_refreshes", "num_query_tokens"):
            assert getattr(result, name) == getattr(expected, name), f"{name} of {request}"
        assert result.finish_reason == expected.finish_reason
        assert result.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-4)
        assert result.num_prompt_tokens == len(request.prompt_ids)
    assert_same(run(requests, max_sequences=1), batched, "batch 1")
    longest = max(len(r.prompt_ids) + r.max_new_tokens for r in requests)
    shuffled = random.Random(1).sample(requests, len(requests))
    scarce = run(shuffled, max_sequences=7, cache_tokens=2 * (longest + 16), iteration_tokens=100)
    assert_same(scarce, batched, "another order, scarce pages, a small budget of query tokens")
