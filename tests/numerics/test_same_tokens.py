"""The same input gives the same output, whatever the batch, the order or the room for pages."""

import random
from dataclasses import replace

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine, EngineConfig
from engine.model.transformer import Transformer
from engine.request import Request, Result
from tests.numerics.reference_loop import decode
from tests.tiny import mixed_requests, tiny_model

BLOCK = 16
COMBINATIONS = [
    pytest.param(cache, decoder, temperature, id=f"{cache}-{decoder}-{temperature}")
    for cache in ("none", "dual")
    for decoder in ("fixed", "threshold")
    for temperature in (0.0, 0.7)
]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model()


def run(
    model: Transformer, requests: list[Request], cache: str, decoder: object, **engine: int
) -> dict[int, Result]:
    config = EngineConfig(**{"block_length": BLOCK, "max_sequences": 32, **engine})
    made = DiffusionEngine(model, config=config, decoding=decoder, cache=CACHE_POLICIES[cache]())
    results = {result.request_id: result for result in made.results(requests)}
    made.iterations.pages.check_integrity()
    assert made.iterations.pages.num_granted == 0, "pages were not given back"
    return results


def assert_same(results: dict[int, Result], expected: dict[int, Result], what: str) -> None:
    assert results.keys() == expected.keys()
    for i, result in results.items():
        want = replace(expected[i], mean_confidence=result.mean_confidence)
        assert result == want, f"request {i} differs with {what}"
        assert result.mean_confidence == pytest.approx(expected[i].mean_confidence, abs=1e-3)


@pytest.mark.parametrize(("cache", "decoder", "temperature"), COMBINATIONS)
def test_engine_equals_unbatched_reference(
    model: Transformer, cache: str, decoder: str, temperature: float
) -> None:
    requests = mixed_requests(64, temperature=temperature)
    strategy = DECODERS[decoder]()
    batched = run(model, requests, cache, strategy)
    for request in requests:
        expected = decode(model, request, cache=cache, decoder=decoder, block_length=BLOCK)
        result = batched[request.request_id]
        for name in ("token_ids", "num_iterations", "num_refreshes", "num_query_tokens"):
            assert getattr(result, name) == getattr(expected, name), f"{name} of {request}"
        assert result.finish_reason == expected.finish_reason
        assert result.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-4)
        assert result.num_prompt_tokens == len(request.prompt_ids)

    assert_same(run(model, requests, cache, strategy, max_sequences=1), batched, "batch 1")
    assert_same(run(model, requests, cache, strategy, cache_tokens=208), batched, "scarce pages")
    shuffled = random.Random(1).sample(requests, len(requests))
    assert_same(run(model, shuffled, cache, strategy, max_sequences=7), batched, "another order")


@pytest.mark.parametrize("iterations_per_block", [1, 3, 5, 16, 40])
def test_fixed_schedule_spreads_commits(model: Transformer, iterations_per_block: int) -> None:
    requests = mixed_requests(12, seed=3)
    strategy = DECODERS["fixed"](iterations_per_block=iterations_per_block)
    results = run(model, requests, "dual", strategy)
    for request in requests:
        expected = decode(
            model,
            request,
            cache="dual",
            decoder="fixed",
            block_length=BLOCK,
            iterations_per_block=iterations_per_block,
        )
        assert results[request.request_id].token_ids == expected.token_ids
        assert results[request.request_id].num_iterations == expected.num_iterations


def test_stop_at_eos_saves_forwards_and_changes_no_token(model: Transformer) -> None:
    requests = mixed_requests(32, seed=5)
    early = run(model, requests, "none", DECODERS["threshold"]())
    full = run(model, requests, "none", DECODERS["threshold"](), stop_at_eos=False)
    assert {i: r.token_ids for i, r in early.items()} == {i: r.token_ids for i, r in full.items()}
    ended = [i for i, result in early.items() if result.finish_reason == "eos"]
    assert ended, "no sequence ended at EOS: the test model proves nothing"
    assert sum(early[i].num_iterations for i in ended) < sum(full[i].num_iterations for i in ended)


def test_the_test_model_tells_decoders_apart(model: Transformer) -> None:
    """Both kinds of finish, several commits in one iteration, and draws that differ from greedy."""
    greedy = run(model, mixed_requests(64), "dual", DECODERS["threshold"]())
    drawn = run(model, mixed_requests(64, temperature=0.7), "dual", DECODERS["threshold"]())
    reasons = {result.finish_reason for result in greedy.values()}
    assert reasons == {"eos", "length"}
    tokens = sum(result.num_generated_tokens for result in greedy.values())
    assert tokens > 1.3 * sum(result.num_iterations for result in greedy.values())
    assert sum(greedy[i].token_ids != drawn[i].token_ids for i in greedy) > 16
