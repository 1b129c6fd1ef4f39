"""The engine's contract: when sequences enter and leave, and the errors of impossible requests."""

from collections.abc import Iterator

import pytest
import torch

from engine.cache.dual import DualCache
from engine.cache.none import NoCache
from engine.decoding.threshold import Threshold
from engine.device_batch import Batch
from engine.engine import DiffusionEngine, EngineConfig
from engine.request import FinishReason, Request
from tests.engine.tape import NoReading, reduce_as_on_a_gpu
from tests.tiny import EOS, MASK, VOCAB_SIZE, mixed_requests, tiny_model


def make_engine(dtype: torch.dtype = torch.float32, **settings: int) -> DiffusionEngine:
    return DiffusionEngine(
        tiny_model().to(dtype),
        config=EngineConfig(**{"block_length": 8, "max_sequences": 4, **settings}),
        decoding=Threshold(),
        cache=DualCache(),
    )


def test_a_finished_sequence_leaves_at_once_and_a_waiting_one_takes_its_place() -> None:
    engine = make_engine(max_sequences=3)
    for request in mixed_requests(9):
        engine.add(request)
    while engine.num_unfinished:
        waiting = len(engine.iterations.waiting)
        live = len(engine.iterations.live)
        free_places = 3 - live
        done = engine.run_iteration()
        assert len(engine.iterations.waiting) == waiting - min(waiting, free_places)
        admitted = waiting - len(engine.iterations.waiting)
        assert len(engine.iterations.live) == live + admitted - len(done)
        engine.iterations.pages.check_integrity()
    assert engine.stats.peak_sequences == 3


def test_sequences_of_a_batch_are_at_different_blocks() -> None:
    """In some forwards, one sequence refreshes while another is inside its block."""
    engine = make_engine()
    for request in mixed_requests(12):
        engine.add(request)
    mixed = 0
    while engine.num_unfinished:
        before = dict(engine.stats.num_forwards)
        engine.run_iteration()
        after = engine.stats.num_forwards
        mixed += all(after.get(k, 0) > before.get(k, 0) for k in ("refresh", "block"))
    assert mixed > 5


def test_requests_are_drawn_only_while_there_is_room() -> None:
    engine = make_engine(max_sequences=4)
    drawn = 0

    def source() -> Iterator[Request]:
        nonlocal drawn
        for request in mixed_requests(20):
            drawn += 1
            yield request

    returned = 0
    for _ in engine.results(source()):
        returned += 1
        assert drawn - returned <= 4
    assert returned == drawn == 20


def test_scarce_pages_make_requests_wait_and_none_is_lost() -> None:
    engine = make_engine(cache_tokens=96, page_size=8, max_sequences=16)
    results = list(engine.results(mixed_requests(20)))
    assert sorted(r.request_id for r in results) == list(range(20))
    assert engine.stats.peak_pages <= 12
    assert engine.stats.peak_sequences < 16


def test_counts_agree_with_the_results() -> None:
    engine = make_engine()
    results = list(engine.results(mixed_requests(10)))
    stats = engine.stats
    assert len(results) == 10
    assert sum(stats.num_forwards.values()) == sum(r.num_iterations for r in results)
    assert stats.num_forwards["refresh"] == sum(r.num_refreshes for r in results)
    assert sum(stats.num_query_tokens.values()) == sum(r.num_query_tokens for r in results)
    assert stats.num_generated_tokens == sum(len(r.token_ids) for r in results)
    assert 0 < stats.forward_s < stats.iteration_s


def test_mask_and_eos_never_appear_among_the_tokens() -> None:
    for result in make_engine().results(mixed_requests(30)):
        assert not {MASK, EOS} & set(result.token_ids)


def test_bfloat16_runs() -> None:
    results = list(make_engine(torch.bfloat16).results(mixed_requests(6)))
    assert len(results) == 6
    assert all(result.error is None for result in results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": []}, "0 prompt"),
        ({"max_new_tokens": 0}, "0 new tokens"),
        ({"prompt_ids": [1] * 300}, "exceed the model's context of 256"),
        ({"prompt_ids": [1] * 150}, "engine.cache_tokens=128: raise it to at least 176"),
        ({"prompt_ids": [1, VOCAB_SIZE]}, "outside the model's vocabulary"),
        ({"prompt_ids": [-1]}, "outside the model's vocabulary"),
        ({"prompt_ids": [3, MASK]}, "mask token"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
    ],
)
def test_a_request_that_can_never_run_is_an_error_and_the_others_are_done(
    change: dict, message: str
) -> None:
    engine = make_engine(cache_tokens=128)
    good = mixed_requests(3)
    fields = {"request_id": "bad", "prompt_ids": [1, 2], "max_new_tokens": 12} | change
    results = {r.request_id: r for r in engine.results([good[0], Request(**fields), *good[1:]])}
    bad = results.pop("bad")
    assert bad.finish_reason is FinishReason.ERROR
    assert message in bad.error
    assert bad.num_iterations == 0
    assert all(result.error is None for result in results.values())
    assert len(results) == 3


@pytest.mark.parametrize("field", ["block_length", "max_sequences", "cache_tokens", "page_size"])
def test_settings_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"engine.{field}=0"):
        EngineConfig(**{field: 0})


def test_a_whole_number_as_temperature_samples_too() -> None:
    """The bits of the integer 1, read as a float, would be almost 0: greedy."""
    drawn = {}
    for temperature in (1, 1.0):
        requests = mixed_requests(8, temperature=temperature)
        results = make_engine(max_sequences=8).results(requests)
        drawn[type(temperature)] = {r.request_id: r.token_ids for r in results}
    assert drawn[int] == drawn[float]
    greedy = {r.request_id: r.token_ids for r in make_engine().results(mixed_requests(8))}
    assert drawn[int] != greedy


def test_one_host_read_per_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host reads a single tensor per iteration, int32 [2, masked positions], after all that is
    computed on the device."""
    sizes: list[tuple[int, ...]] = []
    real_cpu = torch.Tensor.cpu

    def counting_cpu(self: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(self.shape))
        return real_cpu(self)

    def refuse(self: torch.Tensor) -> None:
        raise AssertionError("a second read of the device in the iteration")

    engine = make_engine(max_sequences=4)
    for request in mixed_requests(4):
        engine.add(request)
    reduce_as_on_a_gpu(engine)
    real_device_part = engine.forwards.device_part

    def device_part(batch: Batch) -> torch.Tensor:
        with NoReading():
            return real_device_part(batch)

    monkeypatch.setattr(engine.forwards, "device_part", device_part)
    monkeypatch.setattr(torch.Tensor, "cpu", counting_cpu)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    masked = sum(min(8, r.max_new_tokens) for r in mixed_requests(4))
    engine.run_iteration()
    assert sizes == [(2, masked)]


def test_a_block_longer_than_any_canvas_is_a_whole_canvas() -> None:
    """Memory is for whole blocks, so it is cut to the model's context; no token changes."""
    results = {
        length: list(make_engine(block_length=length).results(mixed_requests(6)))
        for length in (256, 10**12)
    }
    assert results[256] == results[10**12]


def test_no_cache_recomputes_the_whole_canvas_each_time() -> None:
    engine = DiffusionEngine(
        tiny_model(), config=EngineConfig(block_length=8), decoding=Threshold(), cache=NoCache()
    )
    request = mixed_requests(1)[0]
    (result,) = engine.results([request])
    canvas_len = len(request.prompt_ids) + request.max_new_tokens
    assert result.num_refreshes == result.num_iterations
    assert result.num_query_tokens == result.num_iterations * canvas_len
