"""The batched engine generates the tokens of the plain loops for every combination of components,
whatever the batch, the order of requests or the number of pages."""

from dataclasses import replace
from typing import Any

import pytest

from engine.cache import CACHE_POLICIES
from tests.numerics.combinations import ATTENTIONS, Combination, legal, refusal
from tests.numerics.exact import assert_exact
from tests.numerics.write_combinations import FILE, table
from tests.tiny import mixed_requests, tiny_llada2_model, tiny_model

BLOCK = 16
MODELS = {"bidirectional": tiny_model(), "block-causal": tiny_llada2_model(block_length=BLOCK)}
NUM_REQUESTS = 6
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
"""Smaller than the defaults, because a model with random weights amplifies the embeddings that are
fed back: with the defaults, every rounding error would grow threefold per iteration."""
COMBINATIONS = [
    pytest.param(attention, combination, id=f"{attention}-{combination}")
    for attention in ATTENTIONS
    for combination in legal(MODELS[attention].config, SOFT)
]


def named(
    cache: str, decoding: str, soft: dict[str, Any] | None = None, **more: Any
) -> Combination:
    """A combination with the settings `more`: cache_FIELD for the cache, FIELD for the strategy."""
    of_cache = {k.removeprefix("cache_"): v for k, v in more.items() if k.startswith("cache_")}
    of_decoding = {k: v for k, v in more.items() if not k.startswith("cache_")}
    return Combination({"name": cache, **of_cache}, {"name": decoding, **of_decoding}, soft)


_SETTINGS = [
    *(("bidirectional", named("dual", "fixed", iterations_per_block=n)) for n in (1, 3, 5, 40)),
    *(
        ("bidirectional", named("dual", "fixed", iterations_per_block=6, order=order))
        for order in ("margin", "entropy", "random")
    ),
    ("bidirectional", named("dual", "threshold", threshold=0.8, iterations_per_block=6)),
    ("bidirectional", named("none", "threshold", SOFT, threshold=0.6, iterations_per_block=5)),
    ("bidirectional", named("prefix", "factor", factor=3.0)),
    (
        "bidirectional",
        named("prefix", "factor", factor=3.0, form="code", cache_refresh_every_iterations=3),
    ),
    ("bidirectional", named("dual", "fixed", cache_refresh_every_iterations=2)),
    ("bidirectional", named("commit", "entropy_bound", bound=5.0, counts_own=True)),
    ("bidirectional", named("commit", "entropy_bound", bound=3.0)),
    ("bidirectional", named("none", "klass", num_stable=1, threshold=0.4, top_k=5)),
    ("bidirectional", named("dual", "hierarchical", threshold=0.7, low_threshold=0.1)),
    ("bidirectional", named("dual", "credit", threshold=0.6, alpha=1.5)),
    ("bidirectional", named("none", "edit", threshold=0.3, edit_threshold=0.2)),
    ("bidirectional", named("dual", "edit", threshold=0.3, max_post_iterations=1)),
    ("bidirectional", named("dual", "edit", max_post_iterations=0)),
    ("bidirectional", named("vicinity", "threshold", cache_refresh_every_blocks=2)),
    (
        "bidirectional",
        named(
            "vicinity",
            "fixed",
            cache_warmup=0,
            cache_behind=3,
            cache_ahead=0,
            cache_refresh_every_blocks=9,
            cache_refresh_every_iterations=7,
        ),
    ),
    ("bidirectional", named("dkv", "threshold", cache_refresh_every_iterations=None)),
    ("bidirectional", named("dkv", "fixed", cache_refresh_every_iterations=3)),
    ("bidirectional", named("dual", "threshold", {**SOFT, "top_k": 3})),
    ("bidirectional", named("none", "credit", {**SOFT, "temperature": 0.5, "relaxation": 0.2})),
    *(
        ("bidirectional", named(cache, "threshold", {**SOFT, "scope": "canvas"}))
        for cache in CACHE_POLICIES
        if cache != "block_causal"
    ),
    ("bidirectional", named("prefix", "edit", {**SOFT, "scope": "canvas", "top_k": 5})),
    ("block-causal", named("block_causal", "threshold", cache_fused_commit=False)),
    ("block-causal", named("block_causal", "edit", cache_fused_commit=False, threshold=0.3)),
    ("block-causal", named("block_causal", "fixed", cache_prefill_tokens=20)),
    (
        "block-causal",
        named("block_causal", "credit", cache_prefill_tokens=1, cache_fused_commit=False),
    ),
    ("block-causal", named("block_causal", "threshold", {**SOFT, "top_k": 4})),
    ("block-causal", named("block_causal", "threshold", threshold=0.8, iterations_per_block=3)),
    ("block-causal", named("none", "threshold", threshold=0.95, iterations_per_block=40)),
]
SETTINGS = [
    pytest.param(attention, combination, id=f"{attention}-{combination}")
    for attention, combination in _SETTINGS
]


@pytest.mark.parametrize(("attention", "combination"), [*COMBINATIONS, *SETTINGS])
def test_engine_equals_unbatched_reference(attention: str, combination: Combination) -> None:
    """Greedy and sampled sequences side by side."""
    requests = mixed_requests(NUM_REQUESTS // 2) + [
        replace(request, request_id=-1 - i, temperature=0.7)
        for i, request in enumerate(mixed_requests(NUM_REQUESTS // 2, seed=8))
    ]
    assert_exact(MODELS[attention], combination, requests, BLOCK)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("decoding", ["fixed", "threshold"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_64_prompts(cache: str, decoding: str, temperature: float) -> None:
    requests = mixed_requests(64, temperature=temperature)
    model = MODELS["bidirectional"]
    assert_exact(model, named(cache, decoding), requests, BLOCK, batch=32)


def test_the_table_in_the_docs_is_up_to_date() -> None:
    assert FILE.read_text() == table()


def test_each_refusal_names_a_remedy() -> None:
    for attention, model in MODELS.items():
        for cache, decoding in (("block_causal", "fixed"), ("dual", "edit"), ("dkv", "edit")):
            reason = refusal(model.config, cache, decoding)
            is_legal = (attention, cache) in (
                ("block-causal", "block_causal"),
                ("bidirectional", "dual"),
            )
            assert (reason is None) == is_legal
            assert reason is None or "take " in reason


def test_a_fused_commit_saves_one_forward_per_block() -> None:
    """The tokens are the same with a fused commit, a separate one, and no cache."""
    model, requests = MODELS["block-causal"], mixed_requests(24)
    fused = named("block_causal", "threshold").run(model, requests, block_length=BLOCK)
    apart = named("block_causal", "threshold", cache_fused_commit=False).run(
        model, requests, block_length=BLOCK
    )
    plain = named("none", "threshold").run(model, requests, block_length=BLOCK)
    for request in requests:
        i, first = request.request_id, len(request.prompt_ids) // BLOCK
        assert fused[i].token_ids == apart[i].token_ids == plain[i].token_ids
        assert fused[i].num_iterations == plain[i].num_iterations
        last = len(request.prompt_ids) + len(fused[i].token_ids)
        last = min(last, len(request.prompt_ids) + request.max_new_tokens - 1) // BLOCK
        prefill = first > 0
        assert apart[i].num_iterations - fused[i].num_iterations == last - first + prefill


def test_a_block_whose_last_forward_changed_nothing_needs_no_commit_pass() -> None:
    """That forward has already written the final K and V."""
    model, requests = MODELS["block-causal"], mixed_requests(24)
    settles = {"edit_threshold": 1.0}
    fused = named("block_causal", "edit", **settles).run(model, requests, block_length=BLOCK)
    apart = named("block_causal", "edit", cache_fused_commit=False, **settles)
    engine = apart.engine(model, block_length=BLOCK)
    results = {result.request_id: result for result in engine.results(requests)}
    assert "commit" not in engine.stats.num_forwards
    for request in requests:
        prefill = len(request.prompt_ids) >= BLOCK
        mine, fused_one = results[request.request_id], fused[request.request_id]
        assert mine.token_ids == fused_one.token_ids
        assert mine.num_iterations == fused_one.num_iterations + prefill


def test_stop_at_eos_saves_forwards_and_changes_no_token() -> None:
    requests = mixed_requests(32, seed=5)
    combination = named("none", "threshold")
    model = MODELS["bidirectional"]
    early = combination.run(model, requests, block_length=BLOCK)
    full = combination.run(model, requests, block_length=BLOCK, stop_at_eos=False)
    assert {i: r.token_ids for i, r in early.items()} == {i: r.token_ids for i, r in full.items()}
    ended = [i for i, result in early.items() if result.finish_reason == "eos"]
    assert ended, "no sequence ended at EOS: the test model proves nothing"
    assert sum(early[i].num_iterations for i in ended) < sum(full[i].num_iterations for i in ended)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_test_models_tell_decoders_apart(attention: str) -> None:
    """Sequences finish in both ways, several tokens commit per iteration, and drawn tokens differ
    from greedy ones. Otherwise the comparisons would prove little."""
    cache = "dual" if attention == "bidirectional" else "block_causal"
    combination, model = named(cache, "threshold", threshold=0.7), MODELS[attention]
    greedy = combination.run(model, mixed_requests(64), block_length=BLOCK)
    drawn = combination.run(model, mixed_requests(64, temperature=0.7), block_length=BLOCK)
    reasons = {result.finish_reason for result in greedy.values()}
    assert reasons == {"eos", "length"}
    tokens = sum(result.num_generated_tokens for result in greedy.values())
    assert tokens > 1.3 * sum(result.num_iterations for result in greedy.values())
    assert sum(greedy[i].token_ids != drawn[i].token_ids for i in greedy) > 16
