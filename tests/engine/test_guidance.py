"""Sequences with guidance: what is computed for them, ranks, graphs, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.batch import pack
from engine.batch_buffer import BatchShape
from engine.engine import DiffusionEngine
from engine.guidance import guided
from engine.model.transformer import Transformer
from engine.request import FinishReason, Request, Result
from tests.engine.guided_rows import DUAL, SETTINGS, mixed, results_of
from tests.engine.tape import TapeCapture, use_graphs
from tests.engine.test_decoding_ranks import LocalWords
from tests.engine.thread_ranks import on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model


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
