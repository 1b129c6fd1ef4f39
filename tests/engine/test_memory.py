"""When memory is short, the engine loses no row and generates the same tokens."""

from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Any

import pytest
import torch

from engine.cache import CACHE_POLICIES
from engine.config import BYTES_PER_LOGIT
from engine.decoding import DECODERS
from engine.decoding.logits import Logits
from engine.engine import DiffusionEngine, EngineConfig
from engine.iterations import CLEAN_ITERATIONS
from engine.memory import free_bytes, is_out_of_memory, num_pages, slot_bytes
from engine.request import FinishReason, Request, Result
from engine.soft import SoftIteration
from tests.tiny import mixed_requests, tiny_config, tiny_model

CPU = torch.device("cpu")


def make_engine(
    cache: str = "dual", decoding: str = "threshold", soft: str = "off", **settings: Any
) -> DiffusionEngine:
    """`soft`: the scope of soft iteration, or "off"."""
    iteration = SoftIteration() if soft == "off" else SoftIteration(enabled=True, scope=soft)
    config = {"block_length": 8, "max_sequences": 6, "soft": iteration}
    return DiffusionEngine(
        tiny_model(),
        config=EngineConfig(**{**config, **settings}),
        decoding=DECODERS[decoding](),
        cache=CACHE_POLICIES[cache](),
    )


def results_of(engine: DiffusionEngine, num_requests: int = 14) -> dict[Any, Result]:
    requests = mixed_requests(num_requests, temperature=0.5)
    return {result.request_id: result for result in engine.results(requests)}


def fail_sometimes(
    real: Callable[..., Any], fails: Iterator[bool], error: Exception
) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if next(fails):
            raise error
        return real(*arguments, **named)

    return call


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("cache", "decoding", "soft"),
    [
        ("dual", "threshold", "off"),
        ("commit", "credit", "off"),
        ("dkv", "klass", "block"),
        ("prefix", "threshold", "canvas"),
    ],
)
def test_a_failed_allocation_changes_no_row(
    cache: str, decoding: str, soft: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allocations fail in the middle of a forward, after some layers have written K and V, and in
    the head."""
    undisturbed = results_of(make_engine(cache, decoding, soft))
    engine = make_engine(cache, decoding, soft)
    forwards = count(1)
    attempts = [0]

    def numbered(*arguments: Any) -> torch.Tensor:
        attempts[0] = next(forwards)
        return real_forward(*arguments)

    real_forward, layer = engine.runner.forward, engine.runner.model.layers[1]
    monkeypatch.setattr(engine.runner, "forward", numbered)
    in_layer = (attempts[0] % 7 == 3 for _ in repeat(0))
    monkeypatch.setattr(layer, "add_mlp", fail_sometimes(layer.add_mlp, in_layer, error))
    in_head = (attempts[0] % 7 == 5 for _ in repeat(0))
    monkeypatch.setattr(
        engine.runner, "logits", fail_sometimes(engine.runner.logits, in_head, error)
    )
    disturbed = results_of(engine)
    assert engine.stats.num_failed_forwards > 5
    assert disturbed.keys() == undisturbed.keys()
    for i, result in disturbed.items():
        assert result.error is None
        assert result.token_ids == undisturbed[i].token_ids
        assert result.num_iterations == undisturbed[i].num_iterations
    assert 0 < engine.stats.forward_s < engine.stats.iteration_s
    engine.iterations.pages.check_integrity()
    assert engine.iterations.pages.num_granted == 0


def test_a_failure_halves_the_budget_and_it_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(iteration_tokens=512)
    for request in mixed_requests(40):
        engine.add(request)
    fails = iter([True])
    monkeypatch.setattr(
        engine.runner,
        "forward",
        fail_sometimes(
            engine.runner.forward, (next(fails, False) for _ in repeat(0)), OUT_OF_MEMORY[0]
        ),
    )
    plan = engine.iterations.schedule()
    assert plan is not None
    first = plan.num_query_tokens
    engine.run_iteration()
    assert engine.iterations.token_budget == first // 2
    for _ in range(CLEAN_ITERATIONS):
        engine.run_iteration()
    assert engine.iterations.token_budget == min(first // 2 * 2, 512)


def test_a_sequence_that_never_fits_is_an_error_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = make_engine()
    real, too_long = engine.runner.forward, 80

    def forward(batch: Any, *rest: Any) -> torch.Tensor:
        if batch.positions_Q.shape[0] >= too_long:
            raise OUT_OF_MEMORY[0]
        return real(batch, *rest)

    monkeypatch.setattr(engine.runner, "forward", forward)
    results = results_of(engine, 20)
    undisturbed = results_of(make_engine(), 20)
    for request in mixed_requests(20):
        result = results[request.request_id]
        if len(request.prompt_ids) + request.max_new_tokens >= too_long:
            assert result.finish_reason is FinishReason.ERROR
            assert "no memory for a forward" in str(result.error)
        else:
            assert result.token_ids == undisturbed[request.request_id].token_ids
    assert {result.finish_reason for result in results.values()} > {FinishReason.ERROR}


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    error = RuntimeError("shapes cannot be multiplied")
    fails = (True for _ in repeat(0))
    monkeypatch.setattr(
        engine.runner, "forward", fail_sometimes(engine.runner.forward, fails, error)
    )
    with pytest.raises(RuntimeError, match="shapes"):
        results_of(engine)
    assert not is_out_of_memory(error)


def test_logits_never_exceed_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces of logits stay within the limit, and give the same tokens."""
    limit = 5 * BYTES_PER_LOGIT[True] * tiny_config().vocab_size
    engine = make_engine(decoding="klass", logits_bytes=limit)
    sizes = []
    real = engine.runner.logits

    def logits(*hidden: Any) -> Logits:
        made: Logits = real(*hidden)
        sizes.append(made.local_MU.nbytes)
        return made

    monkeypatch.setattr(engine.runner, "logits", logits)
    pieces = results_of(engine)
    assert max(sizes) == 5 * 4 * tiny_config().vocab_size
    whole = results_of(make_engine(decoding="klass"))
    assert {i: r.token_ids for i, r in pieces.items()} == {i: r.token_ids for i, r in whole.items()}


def test_iterations_stay_within_the_budget_and_no_sequence_starves() -> None:
    engine = make_engine(iteration_tokens=150, max_sequences=12)
    requests = mixed_requests(30)
    longest = max(len(r.prompt_ids) + r.max_new_tokens for r in requests)
    for request in requests:
        engine.add(request)
    costs, longest_wait = [], 0
    while engine.num_unfinished:
        before = sum(engine.stats.num_query_tokens.values())
        engine.run_iteration()
        costs.append(sum(engine.stats.num_query_tokens.values()) - before)
        waits = engine.iterations.live.arrays.num_skipped
        longest_wait = max(longest_wait, waits.max(initial=0))
    assert max(costs) <= max(150, longest)
    assert 0 < longest_wait <= 12


def test_pages_follow_from_the_memory_that_is_free() -> None:
    model = tiny_model()
    config = EngineConfig(cache_tokens=None, memory_fraction=0.5, max_sequences=3, page_size=16)
    assert slot_bytes(model) == 2 * 2 * 4 * 12 * 4
    assert free_bytes(CPU) > 2**20
    # There is far more room than three canvases of 256 positions can fill.
    assert num_pages(config, model) == 3 * 16
    engine = make_engine(cache_tokens=None)
    assert len(results_of(engine)) == 14


def test_a_row_too_long_for_the_free_memory_names_that_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page_bytes = 16 * slot_bytes(tiny_model())
    monkeypatch.setattr("engine.memory.free_bytes", lambda device: 4 * page_bytes)
    engine = make_engine(cache_tokens=None, memory_fraction=0.5)
    engine.add(Request(request_id=0, prompt_ids=[1] * 30, max_new_tokens=8))
    (result,) = engine.run_iteration()
    assert result.error is not None
    assert "the 32 canvas positions that fit into engine.memory_fraction=0.5" in result.error
    assert "(48 are needed)" in result.error


def test_memory_that_holds_no_page_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.memory.free_bytes", lambda device: 1000)
    config = EngineConfig(cache_tokens=None, memory_fraction=0.5)
    with pytest.raises(ValueError, match=r"engine\.memory_fraction=0\.5: leaves no room"):
        num_pages(config, tiny_model())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory_fraction": 1.0}, "engine.memory_fraction=1.0"),
        ({"iteration_tokens": 0}, "engine.iteration_tokens=0"),
        ({"logits_bytes": 0}, "engine.logits_bytes=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "engine.soft.top_k=0"),
        ({"temperature": 0.0}, "engine.soft.temperature=0.0"),
        ({"weight_max": -1.0}, "engine.soft.weight_max=-1.0"),
    ],
)
def test_soft_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftIteration(**settings)
