"""Every family generates what the plain loop of its authors' rules generates (tests/numerics/
authors): one sequence at a time or many at once, greedy and sampled, with caches and without.
"""

from functools import partial
from typing import Any

import pytest

from tests.numerics.authors import block_diffusion, dream, fast_dllm_v2, llada
from tests.numerics.cases import (
    BLOCK,
    CAUSAL,
    Case,
    Settings,
    assert_engine_follows,
    causal,
    model_of,
    requests,
)


def _fast_dllm(name: str, layout: str, choice: llada.Choice, decoding: Settings) -> dict[str, Case]:
    return {
        f"{name}-{kind}": Case(
            layout=layout,
            loop=partial(llada.fast_dllm, block_length=BLOCK, cache=kind, choice=choice),
            decoding=decoding,
            cache={"name": kind},
            engine={"block_length": BLOCK},
        )
        for kind in ("none", "prefix", "dual")
    }


def _llada(name: str, decoding: Settings, **loop: Any) -> dict[str, Case]:
    return {
        f"llada-{name}": Case(
            layout="llada",
            loop=partial(llada.llada, block_length=BLOCK, **loop),
            decoding={"name": "fixed", **decoding},
            engine={"block_length": BLOCK},
            num_requests=24,
        )
    }


def _dream(alg: str, order: str, steps: int | None, **more: Any) -> dict[str, Case]:
    """Dream's own sampler: a full forward in every step, the region as one block."""
    alg_temp = more.pop("alg_temp", 0.0)
    about = [alg, str(steps or "all"), *(["drawn"] if alg_temp else []), *more]
    return {
        "-".join(["dream", *about]): Case(
            layout="dream",
            loop=partial(dream.dream, steps=steps, alg=alg, alg_temp=alg_temp),
            decoding={
                "name": "dream",
                "order": order,
                "iterations_per_block": steps,
                "order_temperature": alg_temp,
            },
            engine={"block_length": 64},
            request=more,
            num_requests=24,
        )
    }


def _fast_dllm_dream(**request: Any) -> dict[str, Case]:
    return {
        "-".join(["fast-dllm-dream", kind, *request]): Case(
            layout="dream",
            loop=partial(dream.fast_dllm_dream, block_length=BLOCK, cache=kind, threshold=0.7),
            decoding={"name": "threshold", "threshold": 0.7},
            cache={"name": kind},
            engine={"block_length": BLOCK},
            request=request,
        )
        for kind in ("none", "prefix", "dual")
    }


def _fast_dllm_v2(layout: str = "fast_dllm_v2", **request: Any) -> dict[str, Case]:
    """Sub-blocks of 4 in blocks of 16, without their block cache and with it."""
    caches = CAUSAL | {"block-cache": CAUSAL["fused"] | {"sub_block_cache": True}}
    return {
        "-".join([layout, kind, *request]): Case(
            layout=layout,
            loop=partial(
                fast_dllm_v2.fast_dllm_v2,
                threshold=0.7,
                sub_block_length=4,
                use_block_cache=kind == "block-cache",
            ),
            decoding={"name": "threshold", "threshold": 0.7},
            cache=cache,
            engine={"block_length": 4},
            request=request,
            config={"bd_size": 16},
        )
        for kind, cache in caches.items()
    }


SMALL_LLADA2 = {"block_length": 8}
SMALL_SDAR = {"block_size": 4}
CASES: dict[str, Case] = {
    **_llada("one-a-step", {}),
    **_llada("steps", {"iterations_per_block": 3}, steps_per_block=3),
    **_llada("random", {"order": "random"}, remasking="random"),
    **_fast_dllm(
        "fast-dllm", "llada", llada.at_threshold(0.7), {"name": "threshold", "threshold": 0.7}
    ),
    **_fast_dllm(
        "factor", "llada", llada.by_factor(1.5, as_coded=False), {"name": "factor", "factor": 1.5}
    ),
    **_fast_dllm(
        "factor-as-coded",
        "llada",
        llada.by_factor(1.5, as_coded=True),
        {"name": "factor", "factor": 1.5, "form": "code"},
    ),
    **_fast_dllm(
        "llada-moe",
        "llada_moe",
        llada.at_lowered_threshold(0.7),
        {"name": "threshold", "threshold": 0.7},
    ),
    **causal(
        "llada2",
        "llada2",
        partial(block_diffusion.threshold_or_share, threshold=0.7),
        {"name": "threshold", "threshold": 0.7},
        config=SMALL_LLADA2,
    ),
    **causal(
        "llada2-filtered",
        "llada2",
        partial(block_diffusion.threshold_or_share, threshold=0.7),
        {"name": "threshold", "threshold": 0.7},
        config=SMALL_LLADA2,
        request={"top_k": 6, "top_p": 0.8},
    ),
    **causal(
        "llada2_1-quality",
        "llada2_1",
        partial(block_diffusion.edit, threshold=0.7, editing_threshold=0.5, max_post_steps=4),
        {"name": "edit", "threshold": 0.7, "edit_threshold": 0.5, "max_post_iterations": 4},
        config=SMALL_LLADA2,
    ),
    **causal(
        "llada2_1-speed",
        "llada2_1",
        partial(block_diffusion.edit, threshold=0.5, editing_threshold=0.0, max_post_steps=4),
        {"name": "edit", "threshold": 0.5, "edit_threshold": 0.0, "max_post_iterations": 4},
        config=SMALL_LLADA2,
    ),
    **causal(
        "sdar",
        "sdar",
        partial(block_diffusion.threshold_or_share, threshold=0.6),
        {"name": "threshold", "threshold": 0.6},
        config=SMALL_SDAR,
    ),
    **causal(
        "sdar-static",
        "sdar",
        block_diffusion.static,
        {"name": "fixed"},
        config=SMALL_SDAR,
    ),
    **causal(
        "sdar-static-2-steps",
        "sdar",
        partial(block_diffusion.static, steps=2),
        {"name": "fixed", "iterations_per_block": 2},
        config=SMALL_SDAR,
        only=lambda request: len(request.prompt_ids) % 4 == 0,
    ),
    **causal(
        "sdar-entropy-bounded",
        "sdar",
        partial(block_diffusion.entropy_bounded, bound=0.9, counts_own=True),
        {"name": "entropy_bound", "bound": 0.9, "counts_own": True},
        config=SMALL_SDAR,
    ),
    **causal(
        "sdar-moe",
        "sdar_moe",
        partial(block_diffusion.threshold_or_share, threshold=0.6),
        {"name": "threshold", "threshold": 0.6},
        config={"block_size": 8},
    ),
    **_dream("entropy", "entropy", 5),
    **_dream("entropy", "entropy", None),
    **_dream("entropy", "entropy", 6, top_p=0.9),
    **_dream("entropy", "entropy", 6, alg_temp=0.4),
    **_dream("maskgit_plus", "confidence", 5),
    **_dream("maskgit_plus", "confidence", 6, top_k=5, top_p=0.9),
    **_dream("topk_margin", "margin", 16),
    **_dream("topk_margin", "margin", 5, top_p=0.9),
    **_dream("origin", "random", 6),
    **_fast_dllm_dream(),
    **_fast_dllm_dream(top_k=5, top_p=0.9),
    **_fast_dllm_v2(),
    **_fast_dllm_v2(top_p=0.8),
    **_fast_dllm_v2("fast_dllm_v2_small"),
}


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", CASES)
def test_the_engine_generates_what_the_authors_rule_does(name: str, temperature: float) -> None:
    case = CASES[name]
    model = model_of(case.layout, tuple(case.config.items()))
    asked = requests(case, model.config.block_length or BLOCK, temperature)
    assert_engine_follows(case, model, asked)
