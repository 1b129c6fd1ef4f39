"""The reference loop: extreme settings, and settings that must give the same results."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.block_causal import as_block_causal
from tests.numerics.reference_loop import Outcome, decode
from tests.tiny import VOCAB_SIZE, mixed_requests, tiny_model

BLOCK = 8
REQUESTS = mixed_requests(12, seed=7)
DRAWN = mixed_requests(6, seed=8, temperature=0.7)
EXACT_IF_BLOCK_CAUSAL = [
    {"name": "dual"},
    {"name": "prefix"},
    {"name": "commit"},
    {"name": "vicinity", "warmup": 0, "refresh_every_blocks": 3},
    {"name": "block_causal"},
    {"name": "block_causal", "fused_commit": False},
    {"name": "block_causal", "prefill_tokens": 20},
    {"name": "block_causal", "prefill_tokens": 3, "fused_commit": False},
]
DECODINGS = [
    {"name": "fixed", "iterations_per_block": 3},
    {"name": "fixed", "order": "margin"},
    {"name": "fixed", "order": "entropy"},
    {"name": "fixed", "order": "random"},
    {"name": "threshold"},
    {"name": "factor"},
    {"name": "hierarchical"},
    {"name": "credit"},
    {"name": "entropy_bound"},
    {"name": "klass"},
    {"name": "edit"},
]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model()


@pytest.fixture(scope="module")
def causal() -> Transformer:
    return as_block_causal(tiny_model(), BLOCK)


def run(model: Any, decoding: dict[str, Any], cache: str = "dual", **others: Any) -> list[Outcome]:
    return run_cache(model, {"name": cache}, decoding, **others)


def run_cache(
    model: Any,
    cache: dict[str, Any],
    decoding: dict[str, Any],
    requests: list[Request] = REQUESTS,
    block_length: int = BLOCK,
    **others: Any,
) -> list[Outcome]:
    return [
        decode(model, request, cache=cache, decoding=decoding, block_length=block_length, **others)
        for request in requests
    ]


def tokens(outcomes: list[Outcome]) -> list[tuple[list[int], str]]:
    return [(outcome.token_ids, outcome.finish_reason) for outcome in outcomes]


def num_blocks(request: Request) -> int:
    return -(-request.max_new_tokens // BLOCK)


@pytest.mark.parametrize(
    "decoding",
    [
        {"name": "threshold", "threshold": 2.0},
        {"name": "factor", "factor": 0.0},
        {"name": "hierarchical", "threshold": 2.0, "low_threshold": 2.0},
        {"name": "credit", "threshold": 2.0, "alpha": 0.0},
        {"name": "klass", "kl_threshold": 0.0},
        {"name": "klass", "threshold": 2.0},
        {"name": "klass", "num_stable": BLOCK},
    ],
)
def test_strict_limit_commits_one_token_an_iteration(
    model: Transformer, decoding: dict[str, Any]
) -> None:
    assert run(model, decoding) == run(model, {"name": "fixed"})
    drawn = run(model, decoding, requests=DRAWN)
    assert drawn == run(model, {"name": "fixed"}, requests=DRAWN)


def test_threshold_1_is_strict_where_no_confidence_reaches_1(model: Transformer) -> None:
    assert run(model, {"name": "threshold", "threshold": 1.0}) == run(model, {"name": "fixed"})


def test_entropy_bound_below_0_commits_by_entropy(model: Transformer) -> None:
    strict = run(model, {"name": "entropy_bound", "bound": -1.0})
    assert strict == run(model, {"name": "fixed", "order": "entropy"})


@pytest.mark.parametrize(
    "decoding",
    [
        {"name": "fixed", "iterations_per_block": 1, "order": "random"},
        {"name": "threshold", "threshold": 0.0},
        {"name": "threshold", "threshold": 2.0, "iterations_per_block": 1},
        {"name": "factor", "factor": 100.0},
        {"name": "hierarchical", "threshold": 0.0},
        {"name": "credit", "threshold": 0.0},
        {"name": "entropy_bound", "bound": 100.0},
        {"name": "klass", "threshold": 0.0, "num_stable": 0},
        {"name": "edit", "threshold": 0.0, "max_post_iterations": 0},
    ],
)
def test_loose_limit_commits_a_block_an_iteration(
    model: Transformer, decoding: dict[str, Any]
) -> None:
    outcomes = run(model, decoding, stop_at_eos=False)
    for request, outcome in zip(REQUESTS, outcomes, strict=True):
        assert outcome.num_iterations == outcome.num_refreshes == num_blocks(request)


@pytest.mark.parametrize(
    "decoding",
    [
        {"name": "hierarchical", "low_threshold": 2.0},
        {"name": "credit", "alpha": 0.0},
        {"name": "klass", "num_stable": 0},
        {"name": "klass", "num_stable": 0, "top_k": 1000},
        {"name": "edit", "threshold": 0.9, "edit_threshold": 2.0, "max_post_iterations": 0},
    ],
)
def test_a_strategy_without_its_special_rule_is_threshold(
    model: Transformer, decoding: dict[str, Any]
) -> None:
    plain = run(model, {"name": "threshold"}, stop_at_eos=False)
    for ours, theirs in zip(run(model, decoding, stop_at_eos=False), plain, strict=True):
        assert ours.mean_confidence == pytest.approx(theirs.mean_confidence, abs=1e-5)
        assert replace(ours, mean_confidence=theirs.mean_confidence) == theirs
    assert tokens(run(model, decoding)) == tokens(run(model, {"name": "threshold"}))


def test_all_decodings_differ(model: Transformer) -> None:
    """Otherwise the agreements above would prove nothing."""
    outcomes = [run(model, decoding) for decoding in DECODINGS]
    for i, ours in enumerate(outcomes):
        for j, theirs in enumerate(outcomes[:i]):
            assert ours != theirs, (DECODINGS[i], DECODINGS[j])


def test_edit_changes_tokens_and_counts_its_post_iterations(model: Transformer) -> None:
    decoding = {"name": "edit", "edit_threshold": 0.3}
    once = run(model, decoding | {"max_post_iterations": 1}, stop_at_eos=False)
    never = run(model, decoding | {"max_post_iterations": 0}, stop_at_eos=False)
    plain = run(model, {"name": "threshold", "threshold": 0.7}, stop_at_eos=False)
    assert tokens(never) != tokens(plain) != tokens(once) != tokens(never)
    first = [replace(r, max_new_tokens=BLOCK) for r in REQUESTS]
    once = run(model, decoding | {"max_post_iterations": 1}, requests=first)
    never = run(model, decoding | {"max_post_iterations": 0}, requests=first)
    more = [
        ours.num_iterations - theirs.num_iterations
        for ours, theirs in zip(once, never, strict=True)
    ]
    assert more == [1] * len(first)


def test_edit_is_refused_where_committed_tokens_are_kept(model: Transformer) -> None:
    with pytest.raises(ValueError, match="dkv"):
        run(model, {"name": "edit"}, cache="dkv")


def test_misspelt_setting_is_refused(model: Transformer) -> None:
    with pytest.raises(TypeError, match="treshold"):
        run(model, {"name": "threshold", "treshold": 0.9})


@pytest.mark.parametrize("decoding", [{"name": "threshold"}, {"name": "klass"}, {"name": "credit"}])
def test_caches_agree_where_they_feed_the_same(
    model: Transformer, decoding: dict[str, Any]
) -> None:
    none = run(model, decoding, cache="none")
    wide = run_cache(model, {"name": "vicinity", "behind": 999, "ahead": 999}, decoding)
    assert tokens(wide) == tokens(none)
    assert [o.num_query_tokens for o in wide] == [o.num_query_tokens for o in none]
    assert run_cache(model, {"name": "dkv", "refresh_every_iterations": 1}, decoding) == none
    often = {"name": "vicinity", "refresh_every_iterations": 1}
    assert run_cache(model, often, decoding) == none
    dual, prefix, commit, narrow = (
        run_cache(model, cache, decoding, block_length=64)
        for cache in (
            {"name": "dual"},
            {"name": "prefix"},
            {"name": "commit"},
            {"name": "vicinity", "behind": 0, "ahead": 0, "warmup": 0},
        )
    )
    assert dual == prefix == commit == narrow


@pytest.mark.parametrize("name", ["threshold", "klass", "edit"])
def test_block_causal_caches_are_exact(causal: Transformer, name: str) -> None:
    """The tokens do not depend on when K and V are written, whether greedy or drawn."""
    for requests in (REQUESTS[:6], DRAWN[:3]):
        expected = run(causal, {"name": name}, cache="none", requests=requests)
        for cache in EXACT_IF_BLOCK_CAUSAL:
            has_more_forwards = "fused_commit" in cache or "prefill_tokens" in cache
            outcomes = run_cache(causal, cache, {"name": name}, requests)
            assert tokens(outcomes) == tokens(expected), cache
            for ours, theirs in zip(outcomes, expected, strict=True):
                assert has_more_forwards or ours.num_iterations == theirs.num_iterations


def test_one_causal_block_is_a_bidirectional_canvas(model: Transformer) -> None:
    for request in REQUESTS:
        length = len(request.prompt_ids) + request.max_new_tokens
        decoding = {"name": "threshold"}
        plain = run(model, decoding, cache="none", requests=[request], block_length=64)
        wrapped = as_block_causal(model, length)
        assert (
            run(wrapped, decoding, cache="none", requests=[request], block_length=length) == plain
        )


def test_eos_after_the_limit_does_not_count(causal: Transformer) -> None:
    num_tried = 0
    for request in REQUESTS:
        (long,) = run(causal, {"name": "threshold"}, cache="none", requests=[request])
        num_tokens = len(long.token_ids)
        ends_in_block = (len(request.prompt_ids) + num_tokens) % BLOCK
        if long.finish_reason != "eos" or not num_tokens or not ends_in_block:
            continue
        num_tried += 1
        for max_new_tokens, reason in ((num_tokens, "length"), (num_tokens + 1, "eos")):
            cut = replace(request, max_new_tokens=max_new_tokens)
            (outcome,) = run(causal, {"name": "threshold"}, cache="none", requests=[cut])
            assert (outcome.token_ids, outcome.finish_reason) == (long.token_ids, reason)
            assert outcome.num_iterations <= long.num_iterations
            assert outcome.num_iterations == long.num_iterations or reason == "length"
    assert num_tried > 2


def test_soft_iteration(model: Transformer) -> None:
    still = {"weight_start": 0.0, "weight_growth": 0.0}
    fixed = run(model, {"name": "fixed"})
    assert run(model, {"name": "fixed"}, soft=still) == fixed
    assert run(model, {"name": "threshold"}, soft=still | {"relaxation": 0.0}) == fixed
    soft = run(model, {"name": "threshold"}, soft={})
    assert tokens(soft) != tokens(run(model, {"name": "threshold"}))
    assert run(model, {"name": "threshold"}, soft={"top_k": VOCAB_SIZE}) == soft
    assert run(model, {"name": "threshold"}, soft={"top_k": 2}) != soft
    assert np.mean([o.num_iterations for o in soft]) < np.mean([o.num_iterations for o in fixed])
