"""Sequences with guidance: their pages, memory, ranks, graphs, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from engine.batch import pack
from engine.batch_buffer import BatchShape
from engine.config import BYTES_PER_LOGIT
from engine.engine import DiffusionEngine
from engine.guidance import Unconditional, bytes_per_guided_logit, guided
from engine.model.transformer import Transformer
from engine.request import FinishReason, Request, Result
from tests.engine.live_bytes import LiveBytes
from tests.engine.tape import TapeCapture, use_graphs
from tests.engine.test_decoding_ranks import LocalWords
from tests.engine.thread_ranks import on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model

DUAL = Combination({"name": "dual"}, {"name": "threshold", "threshold": 0.6})
SETTINGS = {"block_length": 8, "max_sequences": 6}


def mixed(num_requests: int, guidance: float = 0.5) -> list[Request]:
    """Every second one with guidance, every third one sampled."""
    return [
        replace(r, guidance=guidance * (i % 2), temperature=0.7 * (i % 3 == 2))
        for i, r in enumerate(mixed_requests(num_requests))
    ]


def results_of(engine: DiffusionEngine, requests: list[Request]) -> dict[Any, Result]:
    results = {result.request_id: result for result in engine.results(requests)}
    engine.iterations.pages.check_integrity()
    assert engine.iterations.pages.num_granted == 0
    assert engine.iterations.live.num_guided == 0
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 97), (17, 130)])
def test_the_formula(shape: tuple[int, int], dtype: torch.dtype) -> None:
    z, un = (torch.randn(shape).to(dtype) for _ in range(2))
    w = np.linspace(0.1, 3, shape[0])
    expected = [
        [u + (w[i] + 1) * (c - u) for c, u in zip(*row, strict=True)]
        for i, row in enumerate(zip(z.tolist(), un.tolist(), strict=True))
    ]
    found = guided(z, un, torch.from_numpy(w + 1).float())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_row_without_guidance_packs_the_same_batch_as_ever() -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    for request in mixed_requests(4):
        engine.add(request)
    plan = engine.iterations.schedule()
    assert plan is not None
    host = pack(plan, engine.model_config)
    assert host.twins is None
    assert plan.num_query_tokens_B is plan.span_lens_B
    assert BatchShape.of(host, []).num_guided == 0


def test_the_budget_counts_both_canvases() -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    request = Request(request_id=0, prompt_ids=[1] * 20, max_new_tokens=12, guidance=1.0)
    engine.add(request)
    plan = engine.iterations.schedule()
    assert plan is not None
    assert plan.num_query_tokens == 64
    assert engine.iterations.pages.num_granted == 4
    host = pack(plan, engine.model_config)
    assert host.positions_Q.tolist() == [*range(32)] * 2
    assert host.context_lens_R.tolist() == [32, 32]
    assert (np.diff(host.first_slot_R) == 32).all()


def test_the_twin_holds_masks_for_the_prompt_and_the_same_tokens_after_it() -> None:
    one_a_forward = Combination({"name": "dual"}, {"name": "fixed"})
    engine = one_a_forward.engine(tiny_model(), **SETTINGS, stop_at_eos=False)
    request = Request(request_id=0, prompt_ids=[7] * 20, max_new_tokens=40, guidance=0.5)
    other = replace(request, request_id=1, guidance=0.0)
    engine.add(other)
    engine.add(request)
    engine.run_iteration()
    num_committed = 0
    while len(engine.iterations.live) == 2:
        s = engine.iterations.live.arrays
        first, offset = int(s.first_slot[1]), int(s.twin_offset[1])
        own, twin = (
            engine.canvases.tokens(torch.arange(start, start + 60)).tolist()
            for start in (first, first + offset)
        )
        mask = engine.model_config.mask_token_id
        assert own[:20] == [7] * 20
        assert twin[:20] == [mask] * 20
        assert own[20:] == twin[20:]
        num_committed = sum(token != mask for token in own[20:])
        engine.run_iteration()
    assert num_committed == 39


@pytest.mark.parametrize("guidance", [-0.5, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_the_rows_error(guidance: float) -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    good = Request(request_id=1, prompt_ids=[1], max_new_tokens=3)
    bad = Request(request_id=0, prompt_ids=[1], max_new_tokens=3, guidance=guidance)
    results = results_of(engine, [bad, good])
    assert results[0].finish_reason is FinishReason.ERROR
    assert f"guidance={guidance}: give 0 (none) or a positive number" == results[0].error
    assert results[1].error is None


def test_a_weight_that_makes_logits_infinite_is_named_in_the_rows_error() -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    good = Request(request_id=1, prompt_ids=[1] * 9, max_new_tokens=3, guidance=1.0)
    results = results_of(engine, [replace(good, request_id=0, guidance=1e38), good])
    assert str(results[0].error).endswith("or lower guidance=1e+38")
    assert results[1].error is None


def test_a_row_whose_two_canvases_do_not_fit_is_refused() -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS, cache_tokens=96)
    plain = Request(request_id=0, prompt_ids=[1] * 40, max_new_tokens=10)
    results = results_of(engine, [plain, replace(plain, request_id=1, guidance=0.5)])
    assert results[0].error is None
    assert results[1].error == (
        "40 prompt + 10 new tokens with guidance=0.5, which takes two canvases, exceed "
        "engine.cache_tokens=96: raise it to at least 128"
    )


def test_two_canvases_of_the_longest_context_name_the_setting_that_gives_them_room() -> None:
    """With cache_tokens=null there is never more room than for max_sequences canvases."""
    engine = DUAL.engine(tiny_model(), block_length=8, max_sequences=1, cache_tokens=None)
    long = Request(request_id=0, prompt_ids=[1] * 200, max_new_tokens=50, guidance=0.5)
    (result,) = results_of(engine, [long]).values()
    assert result.error is not None
    assert "with guidance=0.5" in result.error
    assert "give engine.cache_tokens at least 512" in result.error
    roomy = DUAL.engine(tiny_model(), block_length=8, max_sequences=1, cache_tokens=512)
    (result,) = results_of(roomy, [long]).values()
    assert result.error is None


def test_an_abort_frees_both_canvases() -> None:
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    for request in mixed(9):
        engine.add(request)
    for _ in range(3):
        engine.run_iteration()
    assert engine.iterations.live.num_guided > 0
    engine.abort()
    assert results_of(engine, mixed(9)) == results_of(
        DUAL.engine(tiny_model(), **SETTINGS), mixed(9)
    )


def failing(real: Callable[..., Any], fails: Callable[[], bool]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if fails():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(*arguments)

    return call


@pytest.mark.parametrize("where", ["layer", "head of the guided"])
@pytest.mark.parametrize(
    "combination",
    [
        Combination({"name": "dual"}, {"name": "threshold"}),
        Combination({"name": "dkv"}, {"name": "klass"}, {}),
    ],
    ids=str,
)
def test_a_failed_allocation_changes_no_row(
    combination: Combination, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = results_of(combination.engine(tiny_model(), **SETTINGS), mixed(10))
    engine = combination.engine(tiny_model(), **SETTINGS)
    calls = count(1)
    if where == "layer":
        layer = engine.runner.model.layers[1]
        monkeypatch.setattr(layer, "add_mlp", failing(layer.add_mlp, lambda: next(calls) % 5 == 3))
    else:
        real = engine.runner.logits

        def logits(hidden: torch.Tensor, without: Unconditional | None = None) -> Any:
            if without is not None and next(calls) % 5 == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return real(hidden, without)

        monkeypatch.setattr(engine.runner, "logits", logits)
    disturbed = results_of(engine, mixed(10))
    assert engine.stats.num_failed_forwards > 3
    assert_same(disturbed, undisturbed, "failed forwards")


def test_a_guided_row_that_never_fits_is_an_error_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One whose canvas fits, but not twice, fails because of its guidance."""
    engine = DUAL.engine(tiny_model(), **SETTINGS)
    real = engine.runner.forward

    def forward(batch: Any, *rest: Any) -> torch.Tensor:
        if batch.positions_Q.shape[0] > 70:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(batch, *rest)

    monkeypatch.setattr(engine.runner, "forward", forward)
    long = Request(request_id=0, prompt_ids=[1] * 40, max_new_tokens=10, guidance=0.5)
    others = [
        replace(long, request_id=1, guidance=0.0),
        replace(long, request_id=2, prompt_ids=[1]),
    ]
    results = results_of(engine, [long, *others])
    assert "no memory for a forward of 100 query tokens" in str(results[0].error)
    assert results[1].error is results[2].error is None


def test_three_ranks_generate_the_tokens_of_one() -> None:
    """Guided logits are made from each rank's own words, in pieces of three positions."""
    combination = Combination({"name": "dual"}, {"name": "credit"}, {})
    whole, requests = tiny_model(n_heads=3, n_kv_heads=3), mixed(8)
    settings = {**SETTINGS, "logits_bytes": VOCAB_SIZE * 44}
    expected = combination.run(whole, requests, **settings)
    settings["tensor_parallel"] = 3

    def work(rank: Any) -> dict[Any, Result]:
        return combination.run(LocalWords(whole, rank), requests, **settings)

    for results in on_ranks(3, work):
        assert_same(results, expected, "three ranks")


def with_graphs(model: Transformer) -> tuple[DiffusionEngine, TapeCapture]:
    engine = DUAL.engine(model, block_length=8, max_sequences=3, cache_tokens=600)
    capture = TapeCapture()
    use_graphs(engine, capture)
    return engine, capture


def test_only_forwards_without_guidance_are_replayed() -> None:
    model = tiny_model()
    engine, capture = with_graphs(model)
    guided_rows = [replace(request, guidance=0.5) for request in mixed_requests(5)]
    first = results_of(engine, guided_rows)
    assert capture.num_replays == 0
    assert_same(first, DUAL.run(model, guided_rows, block_length=8), "graphs")
    plain = mixed_requests(5, seed=3)
    assert_same(results_of(engine, plain), DUAL.run(model, plain, block_length=8), "graphs")
    assert capture.num_replays > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guided_logits_stay_within_their_bytes(dtype: torch.dtype) -> None:
    """Until they are made; after that they are as any float32 logits."""
    G, U = 20, 5000
    hidden_GD = torch.randn(G, 8).to(dtype)
    head_UD, twin_GD = torch.randn(U, 8).to(dtype), torch.randn(G, 8).to(dtype)
    weight_G = torch.full((G,), 1.5)
    with LiveBytes() as live:
        made = guided(hidden_GD @ head_UD.T, twin_GD @ head_UD.T, weight_G)
    assert made.nbytes == 4 * G * U
    assert live.peak <= G * U * bytes_per_guided_logit(1, dtype.itemsize) + 8 * G
    assert bytes_per_guided_logit(BYTES_PER_LOGIT[False], 4) == BYTES_PER_LOGIT[False]


def test_guidance_is_refused_where_soft_iteration_has_the_scope_of_the_canvas() -> None:
    soft = {"scope": "canvas"}
    engine = Combination({"name": "dual"}, DUAL.decoding, soft).engine(tiny_model(), **SETTINGS)
    results = results_of(engine, mixed(4))
    errors = {i: result.error for i, result in results.items()}
    assert errors[0] is errors[2] is None
    assert "engine.soft.scope=block" in (errors[1] or "")
    assert errors[3]


def test_guided_logits_are_filtered_and_no_row_depends_on_its_neighbours() -> None:
    requests = [
        replace(r, top_p=0.6, top_k=(None, 5)[i % 2], temperature=0.8, confidence="filtered")
        for i, r in enumerate(mixed(6, guidance=1.5))
    ]
    together = DUAL.run(tiny_model(), requests, **SETTINGS)
    for request in requests:
        alone = DUAL.run(tiny_model(), [request], **SETTINGS)[request.request_id]
        assert alone.token_ids == together[request.request_id].token_ids
    one_word = [replace(r, top_k=1) for r in requests]
    fixed = Combination({"name": "dual"}, {"name": "fixed"})
    drawn = fixed.run(tiny_model(), one_word, **SETTINGS)
    assert all(result.mean_confidence in (None, 1.0) for result in drawn.values())
