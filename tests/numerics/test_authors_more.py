"""More of the authors' rules, each as a plain loop that the engine equals: guidance, ends that are
held back, LLaDA2.0's and SDAR's schedule beside the threshold, and SDAR's static and left-to-right
runs.

The requests are those of cases.py: prompts and regions at the edges of blocks first.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import pytest

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors import block_diffusion, dream, fast_dllm_v2, llada
from tests.numerics.authors.drawing import Held
from tests.numerics.cases import (
    BLOCK,
    CAUSAL,
    Case,
    Loop,
    Settings,
    assert_engine_follows,
    model_of,
    requests,
)
from tests.numerics.combinations import Combination
from tests.tiny import EOS

TURN_END = 7
HELD = {
    "logits": Held(never=(EOS,)),
    "confidence": Held(last=(EOS, TURN_END)),
    "softmax": Held(last=(EOS, TURN_END), uncounted=(EOS, TURN_END)),
}
BIDIRECTIONAL = ("none", "prefix", "dual")
FILTERS: Settings = {"top_k": 6, "top_p": 0.8}
Named = tuple[str, Case]


def guidance() -> Iterator[Named]:
    """LLaDA's loop has no cache. With one, both canvases keep their K and V."""
    for scale in (0.5, 2.0):
        for steps in (None, 3):
            yield (
                f"llada-guidance={scale}-steps={steps}",
                Case(
                    layout="llada",
                    loop=partial(llada.llada, block_length=BLOCK, steps_per_block=steps),
                    decoding={"name": "fixed", "iterations_per_block": steps},
                    engine={"block_length": BLOCK},
                    request={"guidance": scale},
                    num_requests=20,
                ),
            )
    for kind in BIDIRECTIONAL:
        yield (
            f"fast-dllm-guidance-{kind}",
            Case(
                layout="llada",
                loop=partial(
                    llada.fast_dllm,
                    block_length=BLOCK,
                    cache=kind,
                    choice=llada.at_threshold(0.8),
                ),
                decoding={"name": "threshold", "threshold": 0.8},
                cache={"name": kind},
                engine={"block_length": BLOCK},
                request={"guidance": 0.5},
                num_requests=24,
            ),
        )


def held_back() -> Iterator[Named]:
    """LLaDA's forms in its own loop, and in the loops of others, whose authors have none."""
    for form, held in HELD.items():
        for steps, remasking, order in (
            (None, "low_confidence", "confidence"),
            (3, "low_confidence", "confidence"),
            (3, "random", "random"),
        ):
            decoding = {"name": "fixed", "iterations_per_block": steps, "order": order}
            loop = partial(
                llada.llada,
                block_length=BLOCK,
                steps_per_block=steps,
                remasking=remasking,
                held=held,
            )
            yield (
                f"llada-{form}-{order}-{steps}",
                _held("llada", form, loop, decoding, {"name": "none"}),
            )
        threshold = {"name": "threshold", "threshold": 0.7}
        for kind in BIDIRECTIONAL:
            loop = partial(
                llada.fast_dllm,
                block_length=BLOCK,
                cache=kind,
                choice=llada.at_threshold(0.7),
                held=held,
            )
            yield (
                f"fast-dllm-{form}-{kind}",
                _held("llada", form, loop, threshold, {"name": kind}),
            )
            loop = partial(
                dream.fast_dllm_dream, block_length=BLOCK, cache=kind, threshold=0.7, held=held
            )
            yield (
                f"fast-dllm-dream-{form}-{kind}",
                _held("dream", form, loop, threshold, {"name": kind}, FILTERS),
            )
        for kind, cache in list(CAUSAL.items())[:2]:
            loop = partial(fast_dllm_v2.fast_dllm_v2, threshold=0.7, sub_block_length=4, held=held)
            blocks = {"engine": {"block_length": 4}, "config": {"bd_size": 16}}
            made = _held("fast_dllm_v2", form, loop, threshold, cache, {"top_p": 0.8}, **blocks)
            yield f"fast-dllm-v2-{form}-{kind}", made
            share = block_diffusion.threshold_or_share
            loop = partial(share, threshold=0.7, steps=3, held=held)
            decoding = {**threshold, "iterations_per_block": 3}
            blocks = {"engine": {}, "config": {"block_length": 8}}
            made = _held("llada2", form, loop, decoding, cache, FILTERS, **blocks)
            yield f"llada2-{form}-{kind}", made


def _held(
    layout: str,
    form: str,
    loop: Loop,
    decoding: Settings,
    cache: Settings,
    request: Settings | None = None,
    engine: Settings | None = None,
    config: Settings | None = None,
) -> Case:
    return Case(
        layout=layout,
        loop=loop,
        decoding={**decoding, "suppress_eos": form},
        cache=cache,
        engine={"block_length": BLOCK} if engine is None else engine,
        config=config or {},
        request=request or {},
        num_requests=22,
    )


def schedules() -> Iterator[Named]:
    """Fewer steps than positions, as many, and more; for SDAR's static runs a threshold that no
    confidence reaches: with prompt tails too, because positions count and not masks."""
    for layout, config, block, threshold in (
        ("llada2", {"block_length": 8}, 8, 0.7),
        ("sdar", {"block_size": 4}, 4, 0.6),
    ):
        for number, steps in enumerate((1, 3, block, block + 5)):
            for kind, cache in list(CAUSAL.items())[: 3 - number % 2]:
                yield (
                    f"{layout}-steps={steps}-{kind}",
                    Case(
                        layout=layout,
                        loop=partial(
                            block_diffusion.threshold_or_share, threshold=threshold, steps=steps
                        ),
                        decoding={
                            "name": "threshold",
                            "threshold": threshold,
                            "iterations_per_block": steps,
                        },
                        cache=cache,
                        config=config,
                        request=FILTERS if kind == "fused" else {},
                    ),
                )
    for steps in (2, 3):
        for kind, cache in CAUSAL.items():
            yield (
                f"sdar-static-{steps}-{kind}",
                Case(
                    layout="sdar",
                    loop=partial(block_diffusion.static, steps=steps),
                    decoding={
                        "name": "threshold",
                        "threshold": 1.0,
                        "iterations_per_block": steps,
                    },
                    cache=cache,
                    config={"block_size": 4},
                ),
            )


def sequential() -> Iterator[Named]:
    """SDAR's `sequential`: a sub-block for each position."""
    for kind, cache in CAUSAL.items():
        for size in (4, 8):
            yield (
                f"sdar-sequential-{size}-{kind}",
                Case(
                    layout="sdar",
                    loop=block_diffusion.sequential,
                    decoding={"name": "fixed"},
                    cache=cache,
                    engine={"block_length": 1},
                    config={"block_size": size},
                    request=FILTERS if size == 8 else {},
                    num_requests=24,
                ),
            )


CASES: dict[str, Case] = dict([*guidance(), *held_back(), *schedules(), *sequential()])


@lru_cache
def with_turn_end(model: Transformer) -> Transformer:
    """The model with a second end, which it predicts often."""
    made = copy.deepcopy(model)
    made.config = replace(model.config, eos_token_ids=(EOS, TURN_END))
    head = made.embed if made.config.tied_head else made.head
    head.weight.data[TURN_END] *= 1.5
    return made


def model_and_requests(case: Case, temperature: float) -> tuple[Transformer, list[Request]]:
    model = model_of(case.layout, tuple(case.config.items()))
    if "suppress_eos" in case.decoding:
        model = with_turn_end(model)
    return model, requests(case, model.config.block_length or BLOCK, temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.8], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", CASES)
def test_the_engine_generates_what_the_authors_rule_does(name: str, temperature: float) -> None:
    case = CASES[name]
    model, asked = model_and_requests(case, temperature)
    assert_engine_follows(case, model, asked)


HELD_BACK = ("llada-{}-confidence-3", "fast-dllm-dream-{}-dual", "fast-dllm-v2-{}-fused")
SCHEDULED = ("llada2-steps=1-none", "llada2-steps=3-none", "sdar-static-2-none")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *((name.format(form), {"held": Held()}) for form in HELD for name in HELD_BACK),
        *((name, {"steps": None}) for name in SCHEDULED),
    ],
)
def test_the_rules_change_what_the_loops_generate(name: str, plain: Settings) -> None:
    """Or the comparisons above would prove nothing."""
    model, asked = model_and_requests(CASES[name], 0.0)
    found = [CASES[name].loop(model, request) for request in asked[5:17]]
    assert found != [CASES[name].loop(model, request, **plain) for request in asked[5:17]]


@pytest.mark.parametrize(
    ("layout", "changes"), [("dream", {}), ("fast_dllm_v2", {"bd_size": 16})], ids=str
)
@pytest.mark.parametrize("form", ["logits", "confidence", "softmax"])
def test_a_block_opens_with_an_end_unless_its_word_is_ruled_out(
    layout: str, changes: dict[str, Any], form: str
) -> None:
    """`alone` commits a block's first position whatever its confidence, so an end that only waits
    for others commits there, and ends the generation before its first token. `logits` takes the
    likeliest of the other words."""
    model = copy.deepcopy(model_of(layout, tuple(changes.items())))
    model.head.weight.data[EOS] *= 3
    cache = {"name": "dual" if layout == "dream" else "block_causal"}
    asked = [
        Request(request_id=i, prompt_ids=[(5 * i + k) % 90 for k in range(16)], max_new_tokens=16)
        for i in range(32)
    ]

    def empty(form: str | None) -> set[Any]:
        decoding = {"name": "threshold", "suppress_eos": form}
        results = Combination(cache, decoding).run(model, asked, block_length=4)
        return {i for i, result in results.items() if not result.token_ids}

    assert 0 < len(empty(None)) < len(asked)
    assert empty(form) == (set() if form == "logits" else empty(None))
