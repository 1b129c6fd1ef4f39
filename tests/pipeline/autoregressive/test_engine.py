"""TransformersEngine against the library's own `generate`, and the promises of DiffusionEngine."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from engine.config import EngineConfig
from engine.errors import UserError
from engine.request import FinishReason, Request, Result
from pipeline.autoregressive.checkpoint import load, read_checkpoint
from pipeline.autoregressive.engine import TransformersEngine
from tests.qwen2 import CONTEXT, write_qwen2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("qwen2"))


def text_of(token_ids: list[int]) -> str:
    return "".join(chr(id + 40) for id in token_ids)


Make = Callable[..., TransformersEngine]


@pytest.fixture
def make(folder: Path) -> Make:
    def made(may_sample: bool = False, **settings: Any) -> TransformersEngine:
        sizes = {"max_sequences": 3, "iteration_tokens": 64, "cache_tokens": 512, "page_size": 16}
        return TransformersEngine(
            load(folder, "float32", torch.device("cpu")),
            read_checkpoint(folder),
            config=EngineConfig(backend="transformers", **{**sizes, **settings}),
            text_of=text_of,
            may_sample=may_sample,
        )

    return made


def requests(count: int, **settings: Any) -> list[Request]:
    """Prompts of 1 to 40 tokens, some longer than the pages, all lengths different."""
    draw = random.Random(3)
    return [
        Request(
            request_id=i,
            prompt_ids=[draw.randrange(200) for _ in range(1 + (17 * i) % 40)],
            seed=1000 + i,
            **{"max_new_tokens": 3 + (5 * i) % 20, **settings},
        )
        for i in range(count)
    ]


def by_id(results: Any) -> dict[Any, Result]:
    listed = list(results)
    found = {result.request_id: result for result in listed}
    assert len(found) == len(listed), "a request with two results"
    return found


def test_greedy_tokens_are_those_of_generate(folder: Path, make: Make) -> None:
    engine, asked = make(), requests(11)
    results = by_id(engine.results(asked))
    model: Any = load(folder, "float32", torch.device("cpu"))
    eos = read_checkpoint(folder).eos_token_ids
    reasons = set()
    for request in asked:
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=request.max_new_tokens,
            eos_token_id=list(eos),
            pad_token_id=0,
        )
        ids = torch.tensor([request.prompt_ids])
        whole = model.generate(ids, generation_config=settings)[0].tolist()
        wanted = whole[len(request.prompt_ids) :]
        result = results[request.request_id]
        is_eos = wanted[-1] in eos
        assert result.token_ids == (wanted[:-1] if is_eos else wanted)
        assert result.finish_reason == (FinishReason.EOS if is_eos else FinishReason.LENGTH)
        assert result.num_iterations == len(wanted)
        assert result.num_query_tokens == len(whole) - 1
        assert (result.seed, result.num_prompt_tokens) == (request.seed, len(request.prompt_ids))
        reasons.add(result.finish_reason)
    assert reasons == {FinishReason.EOS, FinishReason.LENGTH}, "both must be tried"
    stats = engine.stats
    assert stats.num_forwards == {
        "prefill": 11,
        "decode": sum(its.num_iterations for its in results.values()) - 11,
    }
    assert sum(stats.num_query_tokens.values()) == sum(
        its.num_query_tokens for its in results.values()
    )
    assert stats.num_generated_tokens == sum(len(its.token_ids) for its in results.values())
    most = max(its.num_iterations for its in results.values())
    assert most <= stats.num_iterations < sum(stats.num_forwards.values())


def test_an_engine_goes_on_after_its_requests_are_done(make: Make) -> None:
    """A job retries rows on the same engine."""
    engine, asked = make(), requests(4)
    first, second = by_id(engine.results(asked)), by_id(engine.results(asked))
    assert first == second
    assert engine.stats.num_forwards["prefill"] == 8
    assert by_id(engine.results([])) == {}


def test_a_caller_that_stops_leaves_no_thread(make: Make) -> None:
    engine, asked = make(), requests(6)
    stream = engine.results(asked)
    next(stream)
    stream.close()
    assert not engine._manager.is_running()
    assert len(by_id(engine.results(asked))) == 6


def test_sampled_rows_do_not_depend_on_their_neighbours(make: Make) -> None:
    asked = requests(7, temperature=1.5, top_p=0.9, top_k=30)
    together = by_id(make(True).results(asked))
    for request in asked:
        (alone,) = make(True, max_sequences=1).results([request])
        assert alone == together[request.request_id]
    greedy = by_id(make().results(requests(7)))
    assert any(its.token_ids != greedy[name].token_ids for name, its in together.items())


def test_greedy_rows_among_sampled_ones_stay_greedy(make: Make) -> None:
    hot = requests(3, temperature=2.0)
    cold = [r for r in requests(7) if r.request_id > 2]
    results = by_id(make(True).results([*hot, *cold]))
    wanted = by_id(make().results(cold))
    assert {name: results[name] for name in wanted} == wanted


def test_draws_follow_the_distribution(folder: Path, make: Make) -> None:
    """Of one prompt with many seeds: the first token's frequencies are softmax(logits / T) of the
    words that the filters keep."""
    prompt, count = [5, 9, 77, 31], 600
    settings = {"temperature": 2.0, "top_k": 4, "top_p": 0.9}
    asked = [
        Request(request_id=i, prompt_ids=prompt, max_new_tokens=1, seed=i, **settings)
        for i in range(count)
    ]
    engine = make(
        True, max_sequences=64, iteration_tokens=512, cache_tokens=2048, stop_at_eos=False
    )
    drawn = [result.token_ids[0] for result in engine.results(asked)]
    model: Any = load(folder, "float32", torch.device("cpu"))
    logits = model(torch.tensor([prompt])).logits[0, -1] / 2.0
    values, words = logits.topk(4)
    shares = values.softmax(0)
    kept = int((shares.cumsum(0) < 0.9).sum()) + 1
    shares = shares[:kept] / shares[:kept].sum()
    assert set(drawn) <= set(words[:kept].tolist())
    for word, share in zip(words[:kept].tolist(), shares.tolist(), strict=True):
        deviation = (share * (1 - share) / count) ** 0.5
        assert abs(drawn.count(word) / count - share) < 4.5 * deviation


def test_a_stop_string_ends_a_row(make: Make) -> None:
    every = make(stop_at_eos=False).results(requests(3, max_new_tokens=20))
    plain = by_id(every)[2]
    text = text_of(plain.token_ids)
    stop = text[5:7]
    asked = [requests(3, max_new_tokens=20, stop=(stop,))[2]]
    (result,) = make(stop_at_eos=False).results(asked)
    where = text.find(stop)
    assert result.finish_reason == FinishReason.STOP
    assert text_of(result.token_ids)[: result.text_length] == text[:where]
    assert result.num_iterations < plain.num_iterations, "it ended early"


def test_requests_that_cannot_run_are_errors(make: Make) -> None:
    asked = [
        Request(request_id=0, prompt_ids=[], max_new_tokens=4),
        Request(request_id=1, prompt_ids=[1] * CONTEXT, max_new_tokens=1),
        Request(request_id=2, prompt_ids=[10**6], max_new_tokens=4),
        Request(request_id=3, prompt_ids=[1], max_new_tokens=4, guidance=1.0),
        Request(request_id=4, prompt_ids=[1, 2], max_new_tokens=4),
        Request(request_id=5, prompt_ids=[1] * 40, max_new_tokens=60),
    ]
    results = by_id(make(cache_tokens=96).results(asked))
    words = ["empty", "context of 128", "vocabulary", "guidance=1.0", "", "engine.cache_tokens"]
    for number, word in enumerate(words):
        error = results[number].error
        assert (word in error if word else False) if error else not word
    assert results[4].token_ids


def test_a_manager_that_fails_stops_the_job(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()

    def broken(*_: Any) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(engine._manager, "_generation_step", broken)
    with pytest.raises(RuntimeError, match=r"engine=transformers: .*no more memory"):
        list(engine.results(requests(3)))


def test_what_does_not_apply_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"engine\.block_length=32 with engine=transformers"):
        make(block_length=32)
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=2 with engine=transformers"):
        make(tensor_parallel=2)
    with pytest.raises(UserError, match=r"engine\.cache_tokens=null .*give a number"):
        make(cache_tokens=None)
    with pytest.raises(UserError, match=r"engine\.backend='vllm': give one of diffusion"):
        EngineConfig(backend="vllm")
