"""Ranks that hold one model together generate the same results as one rank with the whole model."""

from dataclasses import replace
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import pytest
import torch

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine, EngineConfig
from engine.memory import GroupOutOfMemory, num_pages, slot_bytes
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.parallel import ALONE, TensorParallel
from engine.request import Result
from tests.engine.thread_ranks import ThreadRank, on_ranks
from tests.numerics.exact import assert_same
from tests.published import small_vocabulary, write_weights
from tests.published_configs import CONFIGS
from tests.tiny import EOS, MASK, mixed_requests, write_tiny_checkpoint

SIX_HEADS: dict[str, dict[str, int]] = {
    "llada": {"n_heads": 6, "n_kv_heads": 6},
    "llada2": {"num_attention_heads": 6, "num_key_value_heads": 3},
}


def engine_of(model: Transformer) -> DiffusionEngine:
    cache = "dual" if model.config.block_length is None else "block_causal"
    config = EngineConfig(
        max_sequences=4,
        tensor_parallel=model.parallel.size,
        expert_parallel=model.parallel.split_experts,
    )
    return DiffusionEngine(
        model,
        config=config,
        decoding=DECODERS["threshold"](),
        cache=CACHE_POLICIES[cache](),
    )


def results_of(folder: Path, parallel: TensorParallel = ALONE) -> dict[Any, Result]:
    engine = engine_of(load_model(folder, parallel=parallel))
    sampled = mixed_requests(3, seed=8, temperature=0.7)
    requests = [*mixed_requests(4), *(replace(r, request_id=-1 - i) for i, r in enumerate(sampled))]
    return {result.request_id: result for result in engine.results(requests)}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("layout", CONFIGS)
def test_ranks_with_shares_of_a_model_generate_the_same_tokens(
    layout: str, size: int, tmp_path: Path
) -> None:
    assert_same_on_ranks(tmp_path, layout, size)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("layout", ["llada_moe", "llada2", "sdar_moe", "rnd1"])
def test_ranks_with_whole_experts_generate_the_same_tokens(
    layout: str, size: int, tmp_path: Path
) -> None:
    assert_same_on_ranks(tmp_path, layout, size, split_experts=True)


@pytest.mark.parametrize(("layout", "split"), [("llada", False), ("llada2", True)])
def test_shares_of_words_widths_and_experts_need_not_be_equal(
    layout: str, split: bool, tmp_path: Path
) -> None:
    assert_same_on_ranks(tmp_path, layout, 3, split_experts=split, **SIX_HEADS[layout])


def assert_same_on_ranks(
    folder: Path, layout: str, size: int, split_experts: bool = False, **changes: int
) -> None:
    write_weights(folder, layout, **small_vocabulary(layout, MASK, EOS), **changes)

    def work(rank: ThreadRank) -> dict[Any, Result]:
        rank.split_experts = split_experts
        return results_of(folder, rank)

    expected = results_of(folder)
    for results in on_ranks(size, work):
        assert_same(results, expected, f"{layout} on {size} ranks")


def test_the_rank_with_the_least_memory_limits_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_checkpoint(tmp_path)
    free = iter([8, 5])  # In pages; which rank gets which does not matter.
    page_bytes = 16 * slot_bytes(load_model(tmp_path)) // 2
    monkeypatch.setattr("engine.memory.free_bytes", lambda _: 2 * page_bytes * next(free))
    config = EngineConfig(cache_tokens=None, memory_fraction=0.5, page_size=16)
    pages = on_ranks(2, lambda rank: num_pages(config, load_model(tmp_path, parallel=rank)))
    assert pages == [5, 5]


def test_no_memory_on_one_rank_of_a_group_is_fatal_and_not_an_error_of_a_row(
    tmp_path: Path,
) -> None:
    """That rank raises GroupOutOfMemory; the others are still in the middle of the forward."""
    write_tiny_checkpoint(tmp_path)
    told: list[BaseException] = []

    def work(rank: ThreadRank) -> None:
        engine = engine_of(load_model(tmp_path, parallel=rank))
        if rank.rank == 1:
            mlp, calls = engine.runner.model.layers[1].mlp, list[int]()

            def fails_in_the_third_forward(*args: torch.Tensor) -> None:
                calls.append(1)
                if len(calls) == 3:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

            mlp.register_forward_pre_hook(fails_in_the_third_forward)
        try:
            list(engine.results(mixed_requests(8)))
        except BaseException as error:
            told.append(error)
            raise

    with pytest.raises(GroupOutOfMemory, match=r"2 ranks, .* cannot retry alone: lower engine\.it"):
        on_ranks(2, work)
    assert {type(error) for error in told} == {GroupOutOfMemory, BrokenBarrierError}
