"""The two canvases of a sequence with guidance: what they take, and what happens if they
do not fit."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from engine.batch import pack
from engine.config import BYTES_PER_LOGIT
from engine.guidance import Unconditional, bytes_per_guided_logit, guided
from engine.request import Request
from tests.engine.guided_rows import DUAL, SETTINGS, mixed, results_of
from tests.engine.live_bytes import LiveBytes
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.tiny import tiny_model


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
