"""Models are refused that cannot be divided among the ranks of a group, or not softened."""

from typing import Any

import pytest

from engine.cache.block_causal import BlockCausalCache
from engine.cache.dual import DualCache
from engine.config import EngineConfig
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine
from engine.legal import check_model
from engine.model.config import ModelConfig
from engine.model.families import llada2
from engine.soft import SoftIteration
from tests.tiny import tiny_config, tiny_llada2_raw_config, tiny_model


def dense(num_heads: int, num_kv_heads: int) -> ModelConfig:
    return tiny_config(n_heads=num_heads, n_kv_heads=num_kv_heads)


def with_experts(num_experts: int) -> ModelConfig:
    raw = tiny_llada2_raw_config(num_experts=num_experts, n_group=1, topk_group=1)
    return llada2.read_config(raw)


def check(model: ModelConfig, **settings: Any) -> None:
    cache = DualCache() if model.block_length is None else BlockCausalCache()
    check_model(model, EngineConfig(**settings), cache)


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "size"), [(4, 4, 2), (8, 2, 8), (6, 3, 3)])
def test_a_group_with_whole_heads_for_each_rank_is_accepted(
    num_heads: int, num_kv_heads: int, size: int
) -> None:
    check(dense(num_heads, num_kv_heads), tensor_parallel=size)


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "size", "message"),
    [
        (4, 4, 3, r"engine\.tensor_parallel=3: does not divide .* num_heads=4; set it"),
        (4, 4, 8, r"engine\.tensor_parallel=8: does not divide .* num_heads=4; set it"),
        (12, 6, 4, r"engine\.tensor_parallel=4: is neither a div.* num_kv_heads=6; set it"),
    ],
)
def test_heads_that_cannot_be_divided_are_refused(
    num_heads: int, num_kv_heads: int, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(dense(num_heads, num_kv_heads), tensor_parallel=size)


def test_expert_parallelism_needs_an_expert_for_each_rank() -> None:
    settings = {"tensor_parallel": 4, "expert_parallel": True}
    check(with_experts(6), **settings)
    with pytest.raises(ValueError, match=r"num_experts=3, and each rank needs one; set engine"):
        check(with_experts(3), **settings)
    with pytest.raises(ValueError, match=r"expert_parallel=true: this model \(llada\) has no exp"):
        check(dense(4, 4), **settings)


def test_soft_iteration_over_the_canvas_needs_a_bidirectional_model() -> None:
    canvas = SoftIteration(enabled=True, scope="canvas")
    check(dense(4, 4), soft=canvas)
    check(with_experts(3), soft=SoftIteration(scope="canvas"))
    with pytest.raises(ValueError, match=r"scope=canvas with .*; take engine\.soft\.scope=block"):
        check(with_experts(3), soft=canvas)


def test_the_model_must_be_divided_as_the_config_says() -> None:
    with pytest.raises(AssertionError, match="not as the config says"):
        DiffusionEngine(
            tiny_model(),
            config=EngineConfig(tensor_parallel=2),
            decoding=Threshold(),
            cache=DualCache(),
        )
