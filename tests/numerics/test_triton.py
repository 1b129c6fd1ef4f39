"""The engine on the Triton kernels generates the tokens of the plain loops: on the CPU in Triton's
interpreter, in float32, with few and short sequences, because every program of a kernel takes a
millisecond there. Every cache policy and every decoding strategy is in one of the combinations."""

from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from triton.runtime import interpreter

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.model.load import load_model
from engine.request import Request, Result
from tests.engine.thread_ranks import ThreadRank, on_ranks
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_same
from tests.published import small_vocabulary, write_weights
from tests.tiny import EOS, MASK, tiny_llada2_model, tiny_model

BLOCK = 8
SOFT = {"weight_start": 0.02, "weight_growth": 0.002, "weight_max": 0.05}
MODELS = {
    "bidirectional": lambda: tiny_model(n_layers=1),
    "block-causal": lambda: tiny_llada2_model(block_length=BLOCK, num_hidden_layers=2),
}


def both(attention: str, cache: str, decoding: str, **settings: object) -> object:
    """`settings`: soft, those of the cache as cache_FIELD, and those of the strategy."""
    soft = settings.pop("soft", None)
    of_cache = {k.removeprefix("cache_"): v for k, v in settings.items() if k[:6] == "cache_"}
    of_decoding = {k: v for k, v in settings.items() if k[:6] != "cache_"}
    combination = Combination({"name": cache, **of_cache}, {"name": decoding, **of_decoding}, soft)
    return pytest.param(attention, combination, id=f"{attention}-{combination}")


CASES = [
    both("bidirectional", "none", "fixed", iterations_per_block=2, order="margin"),
    both("bidirectional", "none", "dream", iterations_per_block=3, order="entropy"),
    both("bidirectional", "prefix", "factor", factor=3.0),
    both("bidirectional", "dual", "credit", threshold=0.6, alpha=1.5),
    both("bidirectional", "commit", "entropy_bound", bound=3.0),
    both("bidirectional", "dkv", "klass", num_stable=1, threshold=0.4, top_k=5),
    both("bidirectional", "vicinity", "hierarchical", threshold=0.7, low_threshold=0.1),
    both("bidirectional", "dual", "threshold", soft=SOFT),
    both("bidirectional", "dual", "edit", threshold=0.3, max_post_iterations=1),
    both("block-causal", "block_causal", "threshold", threshold=0.5),
    both("block-causal", "block_causal", "threshold", threshold=0.8, iterations_per_block=3),
    both(
        "block-causal",
        "block_causal",
        "edit",
        threshold=0.3,
        max_post_iterations=2,
        cache_fused_commit=False,
    ),
    both(
        "block-causal", "block_causal", "klass", num_stable=1, threshold=0.4, cache_prefill_tokens=7
    ),
]
REQUESTS = [
    Request(request_id=0, prompt_ids=[5], max_new_tokens=3),
    Request(request_id=1, prompt_ids=[*range(20, 31)], max_new_tokens=9),
    Request(request_id=2, prompt_ids=[7, 80, 7, 9], max_new_tokens=5, temperature=0.7, seed=3),
]


def test_every_policy_and_strategy_is_in_one_of_the_cases() -> None:
    combinations = [case.values[1] for case in CASES]
    assert {each.cache["name"] for each in combinations} == set(CACHE_POLICIES)
    assert {each.decoding["name"] for each in combinations} == set(DECODERS)


@pytest.mark.parametrize("attention", MODELS)
def test_splits_and_linears_of_torch_give_the_same_tokens(attention: str) -> None:
    """engine.batch_invariant=false."""
    is_bidirectional = attention == "bidirectional"
    cache, requests = ("none", REQUESTS[1:]) if is_bidirectional else ("block_causal", REQUESTS[2:])
    combination, model = Combination({"name": cache}, {"name": "threshold"}), MODELS[attention]()
    settings = {"block_length": BLOCK, "kernels": "triton"}
    expected = combination.run(model, requests, **settings)
    split = combination.run(model, requests, **settings, batch_invariant=False)
    assert_same(split, expected, "splits")


@pytest.mark.parametrize(("attention", "combination"), CASES)
def test_triton_generates_the_tokens_of_the_plain_loops(
    attention: str, combination: Combination
) -> None:
    model = MODELS[attention]()
    results = combination.run(model, REQUESTS, block_length=BLOCK, kernels="triton")
    for request in REQUESTS:
        expected = combination.reference(model, request, BLOCK)
        result = results[request.request_id]
        for name in ("token_ids", "num_iterations", "num_refreshes", "num_query_tokens"):
            assert getattr(result, name) == getattr(expected, name), f"{name} of {request}"
        assert result.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-4)


@pytest.mark.parametrize(("layout", "split_experts"), [("llada2", False), ("llada2", True)])
def test_ranks_generate_the_tokens_of_one_rank_in_plain_torch(
    layout: str, split_experts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ranks: their shares of words, widths and experts differ in size."""
    one_launch_at_a_time(monkeypatch)
    changes = dict(num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=2)
    write_weights(
        tmp_path, layout, **small_vocabulary(layout, MASK, EOS), **changes, block_length=BLOCK
    )
    combination = Combination({"name": "block_causal"}, {"name": "threshold"})

    def work(rank: ThreadRank) -> dict[Any, Result]:
        rank.split_experts = split_experts
        model = load_model(tmp_path, parallel=rank)
        settings = {"tensor_parallel": 3, "expert_parallel": split_experts, "kernels": "triton"}
        return combination.run(model, REQUESTS[2:], **settings)

    expected = combination.run(load_model(tmp_path), REQUESTS[2:], kernels="torch")
    for results in on_ranks(3, work):
        assert_same(results, expected, f"{layout} on 3 ranks")


def one_launch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter keeps the place in the grid in a global, so that threads must not launch
    kernels side by side."""
    launch, lock = interpreter.GridExecutor.__call__, Lock()

    def alone(*args: Any, **kwargs: Any) -> None:
        with lock:
            launch(*args, **kwargs)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", alone)
