"""As test_authors.py, for iLLaDA, Stable-DiffCoder, DreamReasoner and RND1."""

from functools import partial
from typing import Any

import pytest

from engine.errors import UserError
from tests.numerics.authors import block_diffusion, dream, llada
from tests.numerics.cases import (
    BLOCK,
    Case,
    Loop,
    Settings,
    assert_engine_follows,
    causal,
    model_of,
    requests,
)
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact
from tests.tiny import mixed_requests


def _illada(name: str, loop: Loop, decoding: Settings, **more: Any) -> dict[str, Case]:
    return {
        f"illada-{name}": Case(
            layout="illada",
            loop=partial(loop, block_length=BLOCK),
            decoding=decoding,
            engine={"block_length": BLOCK},
            **more,
        )
    }


def _illada_fast(cache: str) -> dict[str, Case]:
    """Nobody has published these for iLLaDA: they are Fast-dLLM's for LLaDA."""
    choice = llada.at_threshold(0.7)
    decoding = {"name": "threshold", "threshold": 0.7}
    loop = partial(llada.fast_dllm, cache=cache, choice=choice)
    return _illada(f"threshold-{cache}", loop, decoding, cache={"name": cache})


def _rnd1(steps: int | None, **request: Any) -> dict[str, Case]:
    """RND1's sampler: a full forward in every step, the region as one block."""
    return {
        "-".join(["rnd1", str(steps or "all"), *request]): Case(
            layout="rnd1",
            loop=partial(dream.rnd1, steps=steps),
            decoding={
                "name": "fixed",
                "order": "entropy",
                "remainder": "spread",
                "iterations_per_block": steps,
            },
            engine={"block_length": 64},
            request=request,
            num_requests=24,
        )
    }


def ends_with_a_block(request: Any) -> bool:
    return (len(request.prompt_ids) + request.max_new_tokens) % 4 == 0


THRESHOLD = {"name": "threshold", "threshold": 0.7}
CASES: dict[str, Case] = {
    **_illada("one-a-step", llada.llada, {"name": "fixed"}, num_requests=24),
    **_illada(
        "steps",
        partial(llada.llada, steps_per_block=3),
        {"name": "fixed", "iterations_per_block": 3},
        num_requests=24,
    ),
    **_illada_fast("none"),
    **_illada_fast("prefix"),
    **_illada_fast("dual"),
    **causal(
        "stable-diffcoder",
        "stable_diffcoder",
        partial(block_diffusion.stable_diffcoder, threshold=0.7, is_cut=False),
        THRESHOLD,
    ),
    **causal(
        "stable-diffcoder-one-a-step",
        "stable_diffcoder",
        partial(block_diffusion.stable_diffcoder, threshold=None, is_cut=False),
        {"name": "fixed"},
    ),
    **causal(
        "stable-diffcoder-cut",
        "stable_diffcoder",
        partial(block_diffusion.stable_diffcoder, threshold=0.7),
        THRESHOLD,
        only=ends_with_a_block,
        num_requests=20,
    ),
    **causal(
        "dream-reasoner",
        "dream_reasoner",
        partial(block_diffusion.dream_reasoner, threshold=0.7),
        THRESHOLD,
        config={"block_size": 8},
    ),
    **causal(
        "dream-reasoner-filtered",
        "dream_reasoner",
        partial(block_diffusion.dream_reasoner, threshold=0.7),
        THRESHOLD,
        config={"block_size": 8},
        request={"top_k": 6, "top_p": 0.8},
    ),
    **_rnd1(None),
    **_rnd1(5),
    **_rnd1(16),
    **_rnd1(6, top_k=5, top_p=0.9),
}


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", CASES)
def test_the_engine_generates_what_the_authors_rule_does(name: str, temperature: float) -> None:
    case = CASES[name]
    model = model_of(case.layout, tuple(case.config.items()))
    asked = requests(case, model.config.block_length or BLOCK, temperature)
    assert len(asked) == case.num_requests
    assert_engine_follows(case, model, asked)


def test_rnd1s_schedule_is_not_lladas() -> None:
    """With 5 steps, most regions do not divide; the two commit other numbers at a time."""
    model = model_of("rnd1", ())
    case = CASES["rnd1-5"]
    asked = requests(case, BLOCK, 0.0)
    spread = Combination(case.cache, case.decoding).run(model, asked, **case.engine)
    first = Combination(case.cache, case.decoding | {"remainder": "first"})
    others = first.run(model, asked, **case.engine)
    assert any(spread[i].token_ids != others[i].token_ids for i in spread)


@pytest.mark.parametrize(
    ("layout", "caches"),
    [
        ("rnd1", ["none", "prefix", "dual", "vicinity", "commit", "dkv"]),
        ("dream", ["dual"]),
        ("fast_dllm_v2", ["none", "block_causal"]),
        ("stable_diffcoder", ["block_causal"]),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
def test_a_spread_remainder_goes_with_all_caches_and_models(
    layout: str, caches: list[str], temperature: float
) -> None:
    """Where the model's authors open a block by its first position alone, this does not."""
    model = model_of(layout, ())
    asked = mixed_requests(5, seed=4, temperature=temperature)
    for cache in caches:
        decoding = {"name": "fixed", "remainder": "spread", "iterations_per_block": 3}
        assert_exact(model, Combination({"name": cache}, decoding), asked, 4)


def test_a_spread_remainder_takes_no_other_opening() -> None:
    decoding = {"name": "fixed", "remainder": "spread"}
    combination = Combination({"name": "none"}, decoding, opening="alone")
    with pytest.raises(
        UserError, match=r"engine\.opening=alone with decoding=fixed: .*may commit no"
    ):
        combination.engine(model_of("rnd1", ()))
