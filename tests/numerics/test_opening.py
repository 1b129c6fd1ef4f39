"""Forwards that open a block: the engine generates the plain loop's tokens with every rule, and the
authors' rules say what such a forward commits and computes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.decoding.dream import Dream
from engine.decoding.threshold import Threshold
from engine.errors import UserError
from engine.legal import opening_of
from engine.model.config import ModelConfig
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 16


def published(folder: Path, layout: str, **changes: Any) -> Transformer:
    write_weights(folder, layout, **small_vocabulary(layout, MASK, EOS), **changes)
    return load_model(folder)


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    return published(tmp_path_factory.mktemp("dream"), "dream")


@pytest.fixture(scope="module")
def fast_dllm_v2(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    return published(tmp_path_factory.mktemp("v2"), "fast_dllm_v2", bd_size=BLOCK)


def edges() -> list[Request]:
    """Prompts of exactly one and two blocks, one token more and one less, and shorter ones; 1 new
    token, and generation regions that end with a block and beside its end."""
    lengths = [1, 3, *(n + d for n in (BLOCK, 2 * BLOCK) for d in (-1, 0, 1))]
    regions = [1, BLOCK - 1, BLOCK, BLOCK + 1, 40]
    source = mixed_requests(64, seed=4)
    return [
        Request(
            request_id=(length, new),
            prompt_ids=[(7 * i + length) % 90 for i in range(length)],
            max_new_tokens=new,
            temperature=0.7 * ((length + new) % 3 == 0),
            seed=source[length].seed,
        )
        for length in lengths
        for new in regions
    ]


V2_CACHES: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "block_causal"},
    {"name": "block_causal", "fused_commit": False},
    {"name": "block_causal", "sub_block_cache": True},
    {"name": "block_causal", "prefill_tokens": 17},
    {"name": "block_causal", "prefill_tokens": 1, "fused_commit": False, "sub_block_cache": True},
]


@pytest.mark.parametrize("cache", V2_CACHES, ids=str)
@pytest.mark.parametrize("opening", ["alone", "first", "free"])
def test_edges_of_a_block_causal_model(
    fast_dllm_v2: Transformer, cache: dict[str, Any], opening: str
) -> None:
    requests = edges()[:: 1 if opening == "alone" else 4]
    combination = Combination(cache, {"name": "threshold", "threshold": 0.5}, None, opening)
    assert_exact(fast_dllm_v2, combination, requests, 4)


@pytest.mark.parametrize("cache", ["none", "dual", "prefix", "commit", "vicinity", "dkv"])
def test_edges_of_a_bidirectional_model(dream: Transformer, cache: str) -> None:
    """Dream's rule is `alone`."""
    combination = Combination({"name": cache}, {"name": "threshold", "threshold": 0.5})
    assert_exact(dream, combination, edges(), BLOCK)


DECODINGS: list[dict[str, Any]] = [
    {"name": "fixed", "iterations_per_block": 5},
    {"name": "credit", "threshold": 0.6},
    {"name": "klass", "num_stable": 1, "threshold": 0.4},
    {"name": "hierarchical", "threshold": 0.7, "low_threshold": 0.1},
    {"name": "entropy_bound", "bound": 2.0},
    {"name": "edit", "threshold": 0.3, "edit_threshold": 0.2},
    {"name": "edit", "threshold": 0.3, "edit_threshold": 0.2, "max_post_iterations": 0},
]


@pytest.mark.parametrize("soft", [None, {"weight_start": 0.02, "weight_max": 0.05}], ids=str)
@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_strategies_begin_behind_the_opening(
    dream: Transformer, fast_dllm_v2: Transformer, decoding: dict[str, Any], soft: Any
) -> None:
    """What the strategy and soft iteration keep of a position begins after the opening."""
    requests = edges()[3::7]
    for opening in ("alone", "free"):
        bidirectional = Combination({"name": "dual"}, decoding, soft, opening)
        assert_exact(dream, bidirectional, requests, BLOCK)
    for opening in ("alone", "first", "free"):
        for length in (4, BLOCK):
            causal = Combination({"name": "block_causal"}, decoding, soft, opening)
            assert_exact(fast_dllm_v2, causal, requests, length)


@pytest.mark.parametrize("cache", ["none", "dual", "dkv"])
def test_a_model_with_logits_in_place_can_open_alone(cache: str) -> None:
    combination = Combination({"name": cache}, {"name": "threshold"}, None, "alone")
    assert_exact(tiny_model(), combination, mixed_requests(6), BLOCK)


SAMPLERS: list[dict[str, Any]] = [
    {},
    {"iterations_per_block": 7},
    {"iterations_per_block": 9, "order": "margin", "order_temperature": 0.4},
    {"iterations_per_block": 9, "order": "entropy", "order_temperature": 0.4},
    {"iterations_per_block": 6, "order_temperature": 0.4},
    {"iterations_per_block": 12, "order": "random", "eps": 0.05},
]


@pytest.mark.parametrize("settings", SAMPLERS, ids=str)
def test_dreams_own_sampler(
    dream: Transformer, fast_dllm_v2: Transformer, settings: dict[str, Any]
) -> None:
    """In one block without a cache, as Dream has it, and in the blocks of other models."""
    decoding, requests = {"name": "dream", **settings}, edges()[1::5]
    assert_exact(dream, Combination({"name": "none"}, decoding), requests, 64)
    assert_exact(dream, Combination({"name": "dkv"}, decoding), requests[:4], BLOCK)
    assert_exact(fast_dllm_v2, Combination({"name": "block_causal"}, decoding), requests[:4], 4)


def counted(model: Transformer, request: Request, opening: str | None, **cache: Any) -> Any:
    combination = Combination(cache, {"name": "threshold", "threshold": 1e-6}, None, opening)
    length = 4 if model.config.block_length else BLOCK
    (result,) = combination.run(model, [request], block_length=length, stop_at_eos=False).values()
    return result


def test_an_opening_forward_computes_no_token_of_the_new_block(fast_dllm_v2: Transformer) -> None:
    """Two blocks after a prompt of one, each denoised in 4 sub-blocks of one forward, as every
    confidence reaches the threshold."""
    request = Request(request_id=0, prompt_ids=[5] * BLOCK, max_new_tokens=2 * BLOCK)
    for fused in (True, False):
        result = counted(fast_dllm_v2, request, None, name="block_causal", fused_commit=fused)
        # Prefill and commit pass give the first tokens, then 4 forwards of each block.
        assert result.num_iterations == 2 * (1 + 4)
        assert result.num_query_tokens == 2 * (BLOCK + 4 * BLOCK)
    first = counted(fast_dllm_v2, request, "first", name="block_causal")
    assert first.num_iterations == 2 * 4
    assert first.num_query_tokens == 2 * (BLOCK + 4 * BLOCK)
    tail = replace(request, prompt_ids=[5] * (BLOCK + 6), max_new_tokens=BLOCK - 6)
    # The only block begins with the prompt's tail, in sub-block 1: there is no opening.
    assert counted(fast_dllm_v2, tail, None, name="block_causal").num_iterations == 3


def test_an_opening_forward_is_the_refresh_of_a_dual_cache(dream: Transformer) -> None:
    request = Request(request_id=0, prompt_ids=[5] * 9, max_new_tokens=2 * BLOCK)
    result = counted(dream, request, None, name="dual")
    assert (result.num_iterations, result.num_refreshes) == (4, 2)
    assert result.num_query_tokens == 2 * (9 + 2 * BLOCK + BLOCK)
    assert counted(dream, replace(request, max_new_tokens=1), None, name="dual").num_iterations == 1


def test_a_block_causal_opening_is_greedy(fast_dllm_v2: Transformer) -> None:
    """Its authors take the likeliest word there, whatever the temperature."""
    request = Request(request_id=0, prompt_ids=[5] * BLOCK, max_new_tokens=1)
    cache = {"name": "block_causal"}
    greedy = Combination(cache, {"name": "threshold"}).run(fast_dllm_v2, [request], block_length=4)
    for opening, is_same in ((None, True), ("free", False)):
        drawn = Combination(cache, {"name": "threshold"}, None, opening).run(
            fast_dllm_v2,
            [replace(request, request_id=i, temperature=30.0, seed=i) for i in range(20)],
            block_length=4,
        )
        tokens = [result.token_ids for result in drawn.values()]
        assert all(each == greedy[0].token_ids for each in tokens) == is_same


def test_what_a_model_or_a_strategy_cannot_do_is_refused(
    dream: Transformer, fast_dllm_v2: Transformer
) -> None:
    def opening(model: ModelConfig, value: str | None, **decoding: Any) -> str:
        strategy = Dream() if decoding else Threshold()
        return opening_of(model, EngineConfig(opening=value), strategy)

    llada, llada2 = tiny_model().config, tiny_llada2_model().config
    assert opening(llada, None) == opening(llada2, None) == "free"
    assert opening(dream.config, None) == opening(fast_dllm_v2.config, None) == "alone"
    assert opening(dream.config, None, dream=True) == "free"
    with pytest.raises(UserError, match=r"engine\.opening='both': give one of free, first, alone"):
        EngineConfig(opening="both")
    for model, value in ((llada, "first"), (dream.config, "first"), (llada2, "first")):
        with pytest.raises(UserError, match=r"engine\.opening=first with this model .*; take eng"):
            opening(model, value)
    with pytest.raises(UserError, match=r"opening=alone with this model .*take engine.opening=fr"):
        opening(llada2, "alone")
    with pytest.raises(UserError, match=r"engine\.opening=alone with decoding=dream: .* take eng"):
        opening(dream.config, "alone", dream=True)
