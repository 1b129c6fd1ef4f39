"""The planner's figures equal those of models and engines that are actually built."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from triton.runtime import interpreter

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine, EngineConfig
from engine.kernels.route import split_in_three
from engine.model.config import ModelConfig
from engine.model.families import config_of
from engine.model.load import load_model, read_config
from engine.model.moe import Router, keep_routers_float32
from engine.model.plan.footprint import (
    Footprint,
    PlannedRank,
    Setup,
    activation_bytes,
    can_split,
    capacity_of,
    footprints,
    least_gpu_gb,
    planned_model,
)
from engine.model.plan.published import PUBLISHED
from engine.model.transformer import Transformer
from engine.parallel import ALONE
from engine.request import Request
from tests.engine.live_bytes import LiveBytes
from tests.tiny import EOS, MASK, VOCAB_SIZE, write_tiny_checkpoint, write_tiny_llada2_checkpoint

BILLIONS = {
    "llada_8b": 8.02,
    "llada_moe": 7.36,
    "llada2_mini": 16.26,
    "llada2_flash": 102.89,
    "dream": 7.62,
    "fast_dllm_v2": 7.62,
    "fast_dllm_v2_1_5b": 1.54,
    "sdar_8b": 8.19,
    "sdar_30b": 30.53,
    "illada_8b": 7.62,
    "stable_diffcoder": 8.25,
    "dream_reasoner": 8.19,
    "rnd1_base": 30.53,
}


def config_named(name: str, **changes: Any) -> ModelConfig:
    hub_id, raw = PUBLISHED[name]
    return config_of(raw | changes, hub_id)


def setup_for(model: ModelConfig, dtype: torch.dtype = torch.float32, **engine: Any) -> Setup:
    return Setup(
        model=model, dtype=dtype, engine=EngineConfig(cache_tokens=None, **engine), canvas_len=64
    )


@pytest.mark.parametrize("name", BILLIONS)
def test_published_sizes_give_the_published_number_of_parameters(name: str) -> None:
    model = planned_model(config_named(name), torch.bfloat16, ALONE)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(num_parameters / 1e9, 2) == BILLIONS[name]


def test_every_published_config_is_accepted_by_its_family() -> None:
    for name in PUBLISHED:
        config = config_named(name)
        assert config.mask_token_id < config.vocab_size, name


@pytest.mark.parametrize("split_experts", [False, True])
@pytest.mark.parametrize("name", ["llada_8b", "llada2_mini", "dream", "sdar_30b"])
def test_each_weight_is_on_one_rank_or_on_all(name: str, split_experts: bool) -> None:
    config, size = config_named(name), 4
    whole = dict(planned_model(config, torch.bfloat16, ALONE).named_parameters())
    ranks = [
        dict(planned_model(config, torch.bfloat16, rank).named_parameters())
        for rank in (PlannedRank(r, size, split_experts) for r in range(size))
    ]
    for key, parameter in whole.items():
        counts = [rank[key].numel() for rank in ranks]
        is_on_all = any(word in key for word in ("embed", "norm", "router"))
        assert sum(counts) == parameter.numel() * (size if is_on_all else 1), key
        assert ranks[0][key].dtype == (torch.float32 if "router" in key else torch.bfloat16)


def test_kv_heads_are_repeated_if_there_are_more_ranks() -> None:
    config, size = config_named("llada2_flash"), 8
    whole = planned_model(config, torch.bfloat16, ALONE).layers[0].attn.qkv.weight
    ranks = [planned_model(config, torch.bfloat16, PlannedRank(r, size)) for r in range(size)]
    rows = sum(rank.layers[0].attn.qkv.weight.shape[0] for rank in ranks)
    assert rows == whole.shape[0] + 2 * (size - config.num_kv_heads) * config.head_dim


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("llada_8b", [1, 2, 4, 8, 16, 32]), ("dream", [1, 2, 4, 28]), ("fast_dllm_v2_1_5b", [1, 2])],
)
def test_group_sizes_divide_the_heads(name: str, sizes: list[int]) -> None:
    config = config_named(name)
    found = [size for size in range(1, config.num_heads + 1) if can_split(config, size)]
    assert set(sizes) <= set(found)
    assert all(config.num_heads % size == 0 for size in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "split_experts"), [(1, False), (2, False), (2, True), (4, True)])
def test_weights_and_pages_equal_those_of_a_real_engine(
    size: int, split_experts: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    write_tiny_llada2_checkpoint(tmp_path)
    engines = []
    for rank in range(size):
        parallel = PlannedRank(rank, size, split_experts)
        model = load_model(tmp_path, dtype, parallel=parallel)
        engines.append(engine_of(model, cache_tokens=320))
    models = [engine.runner.model for engine in engines]
    real = [sum(p.nbytes for p in model.parameters()) + parts_bytes(model) for model in models]
    planned = footprint_of(setup_for(read_config(tmp_path), dtype), size, split_experts)
    assert planned.weights == max(real)
    assert {planned.page} == {engine.page_bytes for engine in engines}


def parts_bytes(model: Transformer) -> int:
    """Of the routers as they are laid out for the kernels on a GPU."""
    routers = [module.weight for module in model.modules() if isinstance(module, Router)]
    laid_out = [split_in_three(weight) for weight in routers]
    return sum(x.nbytes for x in laid_out) if model.embed.weight.dtype == torch.bfloat16 else 0


@pytest.mark.parametrize("family", ["llada", "llada2"])
def test_the_engine_admits_as_many_sequences_as_planned(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (write_tiny_checkpoint if family == "llada" else write_tiny_llada2_checkpoint)(tmp_path)
    setup = setup_for(read_config(tmp_path), iteration_tokens=64, logits_bytes=2**17)
    (planned,) = footprints(setup, 1)
    gpu_bytes = planned.weights + 5 * 10**6
    capacity = capacity_of(setup, planned, gpu_bytes)
    assert capacity.num_sequences > 10
    monkeypatch.setattr("engine.memory.free_bytes", lambda device: gpu_bytes - planned.weights)
    engine = engine_of(
        load_model(tmp_path),
        cache_tokens=None,
        memory_fraction=capacity.memory_fraction,
        max_sequences=capacity.num_sequences + 5,
        iteration_tokens=64,
    )
    for i in range(capacity.num_sequences + 5):
        # 40 + 18 tokens: 58 positions, rounded up to 64 by blocks of 8 and by pages of 16.
        engine.add(Request(request_id=i, prompt_ids=[1] * 40, max_new_tokens=18))
    engine.iterations.schedule()
    assert len(engine.iterations.live) == capacity.num_sequences
    rest = (1 - capacity.memory_fraction) * (gpu_bytes - planned.weights)
    assert planned.logits + planned.activations <= rest


def test_memory_fraction_is_lowered_to_fit_logits_and_activations() -> None:
    setup = setup_for(config_named("llada_8b"), torch.bfloat16, memory_fraction=0.8)
    footprint = Footprint(
        num_ranks=1, split_experts=False, weights=10**9, page=10**6, logits=10**8, activations=10**8
    )
    assert capacity_of(setup, footprint, 3 * 10**9).memory_fraction == 0.8
    assert capacity_of(setup, footprint, 3 * 10**9).num_sequences == 1600 // 4
    assert capacity_of(setup, footprint, 3 * 10**9 // 2).memory_fraction == 0.6
    assert capacity_of(setup, footprint, 3 * 10**9 // 2).num_sequences == 300 // 4
    refusal = capacity_of(setup, footprint, 12 * 10**8).refusal
    assert refusal == "the weights leave 0.20 GB, logits and activations need about 0.20 GB"
    assert capacity_of(setup, footprint, 10**9).refusal == "the weights take 1.00 GB"
    refusal = capacity_of(setup, replace(footprint, page=10**9), 3 * 10**9).refusal
    assert refusal == "1.60 GB are left for K and V, a sequence needs 4.00 GB"
    gb = least_gpu_gb(setup, replace(footprint, page=10**9))
    assert gb == 6
    assert capacity_of(setup, replace(footprint, page=10**9), gb * 10**9).num_sequences == 1


SMALL_IDS = {"vocab_size": VOCAB_SIZE, "mask_token_id": MASK, "eos_token_id": EOS}
# Three layers: the last one computes less, and the first one of LLaDA2 has no experts.
SMALL_QWEN = SMALL_IDS | {
    "num_hidden_layers": 3,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SMALL_LLADA = SMALL_IDS | {"n_layers": 3, "n_heads": 8, "n_kv_heads": 8, "embedding_size": None}
SMALL = {
    "wide MLP": ("llada_8b", SMALL_LLADA | {"d_model": 256, "mlp_hidden_size": 768}),
    "wide attention": ("llada_8b", SMALL_LLADA | {"d_model": 512, "mlp_hidden_size": 64}),
    "grouped heads": ("dream", SMALL_QWEN | {"intermediate_size": 1352}),
    "normed heads": ("sdar_8b", SMALL_QWEN | {"intermediate_size": 64}),
    "experts": (
        "llada_moe",
        SMALL_QWEN | {"expert_intermediate_size": 128, "moe_layer_freq": [1, 1, 1]},
    ),
    "shared expert": (
        "llada2_flash",
        SMALL_QWEN | {"rotary_dim": 16, "intermediate_size": 512, "moe_intermediate_size": 128},
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "size", "split_experts"),
    [
        *((shape, size, False) for shape in SMALL for size in (1, 2)),
        *((shape, 2, True) for shape in ("experts", "shared expert")),
    ],
)
def test_activations_of_a_forward_are_at_most_the_estimate_and_not_much_less(
    shape: str, size: int, split_experts: bool, dtype: torch.dtype
) -> None:
    name, changes = SMALL[shape]
    parallel = PlannedRank(0, size, split_experts)
    model = Transformer(config_named(name, **changes), parallel).to(dtype)
    keep_routers_float32(model)
    engine = engine_of(model.requires_grad_(False), cache_tokens=1024, iteration_tokens=512)
    num_tokens, peak = peak_of_a_forward(engine)
    setup = setup_for(model.config, dtype, iteration_tokens=num_tokens)
    assert num_tokens >= 384
    assert peak <= activation_bytes(setup, parallel) <= 1.25 * peak


@pytest.mark.parametrize(
    ("shape", "size", "split_experts"),
    [*((shape, 1, False) for shape in SMALL), ("shared expert", 2, False), ("experts", 2, True)],
)
def test_the_kernels_take_no_more_than_the_estimate(
    shape: str, size: int, split_experts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their launches do nothing here, which changes no allocation."""
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda *args, **kwargs: None)
    name, changes = SMALL[shape]
    parallel = PlannedRank(0, size, split_experts)
    model = Transformer(config_named(name, **changes), parallel).requires_grad_(False)
    engine = engine_of(model, cache_tokens=1024, iteration_tokens=512, kernels="triton")
    num_tokens, peak = peak_of_a_forward(engine)
    setup = setup_for(model.config, torch.float32, iteration_tokens=num_tokens)
    assert num_tokens >= 384
    assert 0 < peak <= activation_bytes(setup, parallel)


class Measured(Exception):
    """Ends an iteration after its forward."""


def peak_of_a_forward(engine: DiffusionEngine) -> tuple[int, int]:
    """Query tokens of a refresh of four sequences, and the peak bytes of its activations."""
    real, peaks = engine.runner.forward, []

    def forward(batch: Any, *rest: Any) -> torch.Tensor:
        with LiveBytes() as live:
            real(batch, *rest)
        peaks.append((batch.positions_Q.shape[0], live.peak))
        raise Measured

    engine.runner.forward = forward  # type: ignore[method-assign]
    for i in range(4):
        engine.add(Request(request_id=i, prompt_ids=[1] * 96, max_new_tokens=32))
    with pytest.raises(Measured):
        engine.run_iteration()
    return peaks[0]


def engine_of(model: Transformer, **settings: Any) -> DiffusionEngine:
    cache = "dual" if model.config.block_length is None else "block_causal"
    ranks = model.parallel
    settings |= {"tensor_parallel": ranks.size, "expert_parallel": ranks.split_experts}
    return DiffusionEngine(
        model,
        config=EngineConfig(**settings),
        decoding=DECODERS["threshold"](),
        cache=CACHE_POLICIES[cache](),
    )


def footprint_of(setup: Setup, size: int, split_experts: bool) -> Footprint:
    """The footprint for `split_experts`; the same as without where that makes no difference."""
    return footprints(setup, size)[-1 if split_experts else 0]
