"""The models that `python -m jobs.bench gpu` measures: published shapes with random weights."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.llm_arguments import component
from engine.model.config import ModelConfig
from engine.model.defaults import all_defaults
from engine.model.families import config_of
from engine.model.moe import keep_routers_float32
from engine.model.plan.published import PUBLISHED
from engine.model.transformer import Transformer

TITLES = {
    "llada_moe": "LLaDA-MoE",
    "llada2_mini": "LLaDA2.0-mini",
    "llada_8b": "LLaDA-8B",
    "sdar_8b": "SDAR-8B",
    "dream": "Dream-7B",
}
"""Name in conf/model -> what tables say, in the order in which the models are measured."""
OTHER_NAMES = {"sdar_8b": "JetLM/SDAR-8B-Chat-b32"}
"""SDAR's blocks of 32: of the default blocks of 4, no forward can commit 8 tokens."""
CONTEXT = 1024
MEASURED_BLOCKS = 4
"""Blocks of a generation region that jobs/bench/gpu/measure.py needs at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """A model's shape, and the settings it is measured with."""

    name: str
    title: str
    config: ModelConfig
    cache_name: str
    cache: CachePolicy
    """The policy that the checkpoint runs with by default."""
    block_length: int
    dtype: torch.dtype = torch.bfloat16
    context: int = CONTEXT
    """Canvas positions that a block attends to while it is measured."""

    @property
    def num_prompt_tokens(self) -> int:
        """Half of the context. Under block-causal attention all of it but one block, since later
        blocks are not attended to; the first forward then spans exactly the context."""
        if self.config.block_length is None:
            return self.context // 2
        return self.context - self.block_length

    @property
    def canvas_len(self) -> int:
        if self.config.block_length is None:
            return self.context
        return self.num_prompt_tokens + MEASURED_BLOCKS * self.block_length

    @property
    def num_new_tokens(self) -> int:
        return self.canvas_len - self.num_prompt_tokens

    def context_of_block(self, index: int) -> int:
        """Positions that the query tokens of the generation region's block `index` attend to."""
        if self.config.block_length is None:
            return self.canvas_len
        return self.num_prompt_tokens + (index + 1) * self.block_length

    def as_dict(self) -> dict[str, Any]:
        """What a report says about it."""
        return {
            "title": self.title,
            "num_prompt_tokens": self.num_prompt_tokens,
            "canvas_len": self.canvas_len,
            "block_length": self.block_length,
            "cache": self.cache_name,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def with_layers(self, num_layers: int) -> "BenchModel":
        """The same widths in fewer layers, with a layer of experts if there are any."""
        return replace(self, config=replace(self.config, num_layers=num_layers))


def bench_model(name: str) -> BenchModel:
    """A model of TITLES, with the block length and the cache policy of conf/model."""
    hub_id, raw = PUBLISHED[name]
    config = config_of(raw, OTHER_NAMES.get(name, hub_id))
    defaults = all_defaults()[name]
    block_length = defaults.engine.get("block_length") or config.block_length
    assert block_length is not None, f"conf/model/{name}.yaml has no block length"
    return BenchModel(
        name=name,
        title=TITLES[name],
        config=config,
        cache_name=defaults.cache,
        cache=component("cache", CACHE_POLICIES, defaults.cache),
        block_length=block_length,
    )


def random_model(model: BenchModel, device: torch.device) -> Transformer:
    """The transformer with random weights, drawn on the device: always the same ones for a device
    and a torch version. Norms are 1, biases 0; matrices keep the size of their input."""
    with torch.device("meta"):
        transformer = Transformer(model.config)
    transformer = transformer.to(model.dtype)
    keep_routers_float32(transformer)
    transformer = transformer.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in transformer.named_parameters():
        if weight.ndim >= 2:
            std = 1.0 if name == "embed.weight" else weight.shape[-1] ** -0.5
            weight.normal_(0, std, generator=generator)
        else:
            weight.fill_(0 if name.endswith("bias") else 1)
    return transformer
