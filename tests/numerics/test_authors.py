"""Every family generates what the plain loop of its authors' rules generates (tests/numerics/
authors): one sequence at a time or many at once, greedy and sampled, with caches and without.

Prompts of one block, one token less, one more and shorter ones are among the requests, and so are
generation regions of one token.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors import block_diffusion, dream, fast_dllm_v2, llada
from tests.numerics.combinations import Combination
from tests.numerics.reference_state import first_end
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, VOCAB_SIZE

Loop = Callable[..., list[int]]
Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family's rule as a loop, and the engine's settings that say the same."""

    layout: str
    loop: Loop
    decoding: Settings
    cache: Settings = field(default_factory=lambda: {"name": "none"})
    engine: Settings = field(default_factory=dict)
    request: Settings = field(default_factory=dict)
    """Changes to the requests, such as top_p."""
    config: Settings = field(default_factory=dict)
    """Changes to config.json."""
    num_requests: int = 48
    only: Callable[[Request], bool] = lambda request: True
    """Which requests the loop covers."""


BLOCK = 8
CAUSAL = {"name": "block_causal"}
APART = {"name": "block_causal", "fused_commit": False}


def _with_caches(name: str, caches: list[Settings], **more: Any) -> dict[str, Case]:
    """A case for each cache."""
    return {f"{name}-{cache['name']}": Case(cache=cache, **more) for cache in caches}


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


def _causal(name: str, layout: str, loop: Loop, decoding: Settings, **more: Any) -> dict[str, Case]:
    """A case without a cache and two with the exact one."""
    caches = {"none": {"name": "none"}, "fused": CAUSAL, "apart": APART}
    return {
        f"{name}-{kind}": Case(layout=layout, loop=loop, decoding=decoding, cache=cache, **more)
        for kind, cache in caches.items()
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
    caches = {"none": {"name": "none"}, "fused": CAUSAL, "apart": APART}
    caches["block-cache"] = CAUSAL | {"sub_block_cache": True}
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
    **_causal(
        "llada2",
        "llada2",
        partial(block_diffusion.threshold_or_share, threshold=0.7),
        {"name": "threshold", "threshold": 0.7},
        config=SMALL_LLADA2,
    ),
    **_causal(
        "llada2-filtered",
        "llada2",
        partial(block_diffusion.threshold_or_share, threshold=0.7),
        {"name": "threshold", "threshold": 0.7},
        config=SMALL_LLADA2,
        request={"top_k": 6, "top_p": 0.8},
    ),
    **_causal(
        "llada2_1-quality",
        "llada2_1",
        partial(block_diffusion.edit, threshold=0.7, editing_threshold=0.5, max_post_steps=4),
        {"name": "edit", "threshold": 0.7, "edit_threshold": 0.5, "max_post_iterations": 4},
        config=SMALL_LLADA2,
    ),
    **_causal(
        "llada2_1-speed",
        "llada2_1",
        partial(block_diffusion.edit, threshold=0.5, editing_threshold=0.0, max_post_steps=4),
        {"name": "edit", "threshold": 0.5, "edit_threshold": 0.0, "max_post_iterations": 4},
        config=SMALL_LLADA2,
    ),
    **_causal(
        "sdar",
        "sdar",
        partial(block_diffusion.threshold_or_share, threshold=0.6),
        {"name": "threshold", "threshold": 0.6},
        config=SMALL_SDAR,
    ),
    **_causal(
        "sdar-static",
        "sdar",
        block_diffusion.static,
        {"name": "fixed"},
        config=SMALL_SDAR,
    ),
    **_causal(
        "sdar-static-2-steps",
        "sdar",
        partial(block_diffusion.static, steps=2),
        {"name": "fixed", "iterations_per_block": 2},
        config=SMALL_SDAR,
        only=lambda request: len(request.prompt_ids) % 4 == 0,
    ),
    **_causal(
        "sdar-entropy-bounded",
        "sdar",
        partial(block_diffusion.entropy_bounded, bound=0.9, counts_own=True),
        {"name": "entropy_bound", "bound": 0.9, "counts_own": True},
        config=SMALL_SDAR,
    ),
    **_causal(
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


@cache
def model_of(layout: str, changes: tuple[tuple[str, Any], ...]) -> Transformer:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder, layout, **small_vocabulary(layout, MASK, EOS), **dict(changes))
        model = load_model(folder)
    head = model.embed if model.config.tied_head else model.head
    head.weight.data[EOS] *= 1.5  # or hardly a request would end before its limit
    return model


def requests(case: Case, block: int, temperature: float) -> list[Request]:
    """Prompts and regions at the edges of blocks first, then of random lengths."""
    draw = random.Random(5)
    lengths = [(1, 1), (block, 1), (block - 1, 2), (block + 1, 1), (block - 1, 1)]
    lengths += [(p, n) for p in (1, block - 1, block, block + 1) for n in (block, block + 3)]
    lengths += [(2 * block, 2 * block + 1), (2 * block - 1, block)]
    while len(lengths) < 4 * case.num_requests:
        lengths.append((draw.randint(1, 2 * block + 2), draw.randint(1, 3 * block + 4)))
    asked = [
        Request(
            request_id=i,
            prompt_ids=[draw.randrange(VOCAB_SIZE - 2) for _ in range(num_prompt_tokens)],
            max_new_tokens=num_new,
            temperature=temperature,
            seed=draw.getrandbits(63),
            **case.request,
        )
        for i, (num_prompt_tokens, num_new) in enumerate(lengths)
    ]
    return [request for request in asked if case.only(request)][: case.num_requests]


def assert_engine_follows(case: Case, model: Transformer, asked: list[Request]) -> None:
    """The engine generates what the case's loop does, in a batch and one by one."""
    combination = Combination(case.cache, case.decoding)
    results = combination.run(model, asked, max_sequences=48, **case.engine)
    for request in asked:
        generated = case.loop(model, request)
        end = first_end(generated, model.config.eos_token_ids)
        result = results[request.request_id]
        assert result.token_ids == generated[:end], request
        assert result.finish_reason == ("length" if end is None else "eos"), request
    few = asked[:12]
    alone = combination.run(model, few, max_sequences=1, **case.engine)
    for request in few:
        i = request.request_id
        assert alone[i].token_ids == results[i].token_ids, f"alone and in a batch: {request}"


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", CASES)
def test_the_engine_generates_what_the_authors_rule_does(name: str, temperature: float) -> None:
    case = CASES[name]
    model = model_of(case.layout, tuple(case.config.items()))
    asked = requests(case, model.config.block_length or BLOCK, temperature)
    assert_engine_follows(case, model, asked)
