"""The training recipes of the two demo models: what differs, initial weights, optimizers."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.cache.block_causal import BlockCausalCache
from engine.cache.none import NoCache
from engine.decoding.threshold import Threshold
from engine.model.config import ModelConfig
from engine.model.families import llada, llada2
from engine.model.load import load_model, read_config
from engine.model.transformer import Transformer
from engine.model.weight_map import weight_map
from engine.model.weights import load_weights
from jobs.demo.task.evaluate import Score, evaluate
from jobs.demo.train.block_states import BLOCK_STAGES, BlockCanvasMaker
from jobs.demo.train.carry_over import carry_over
from jobs.demo.train.config_json import llada2_config, llada_config
from jobs.demo.train.muon import Muon
from jobs.demo.train.states import STAGES, CanvasMaker, Stage

MATRIX_LR = 0.02
"""Peak learning rate of Muon, for the matrices of the layers."""
OTHER_LR = 2e-3
"""Peak learning rate of AdamW, for embedding, head, routers and norms."""
HEAD_STD, EMBEDDING_STD = 0.02, 0.3
SOFTENING = 1.5
"""The head in a checkpoint is the trained head divided by this. The value was chosen on validation
tasks. Each trained confidence is calibrated by itself (no other divisor gives a better likelihood),
but tokens that commit together tend to be wrong together: at a threshold of 0.9 that cost 2.4
points of pass@1."""

Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What differs between the two models in training."""

    family: ModuleType
    config_json: Callable[[PreTrainedTokenizerBase], dict[str, Any]]
    stages: tuple[Stage, ...]
    maker: Callable[[ModelConfig, PreTrainedTokenizerBase, Random], CanvasMaker]
    evaluate: Callable[[Transformer, PreTrainedTokenizerBase, Rows], Score]
    num_validation: int
    stage_after_init: int
    """The stage in which a run with --init starts."""


def _full_maker(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, rng: Random
) -> CanvasMaker:
    return CanvasMaker(tokenizer, rng)


def _block_maker(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, rng: Random
) -> CanvasMaker:
    assert config.block_length is not None, "config.json gives one"
    return BlockCanvasMaker(tokenizer, rng, config.block_length)


def _evaluate_full(model: Transformer, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Score:
    return evaluate(model, tokenizer, rows, Threshold(), NoCache())


def _evaluate_block(model: Transformer, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Score:
    return evaluate(model, tokenizer, rows, Threshold(), BlockCausalCache())


RECIPES = {
    "full": Recipe(
        family=llada,
        config_json=llada_config,
        stages=STAGES,
        maker=_full_maker,
        evaluate=_evaluate_full,
        num_validation=192,
        stage_after_init=len(STAGES) - 1,
    ),
    "block": Recipe(
        family=llada2,
        config_json=llada2_config,
        stages=BLOCK_STAGES,
        maker=_block_maker,
        evaluate=_evaluate_block,
        num_validation=128,
        stage_after_init=0,
    ),
}
"""By `--model`: `full` attends to the whole canvas; `block` is block-causal, with experts."""


@contextmanager
def softened(model: Transformer) -> Iterator[None]:
    """A context in which the model has the softened head that its checkpoint has."""
    model.head.weight.data /= SOFTENING
    try:
        yield
    finally:
        model.head.weight.data *= SOFTENING


def load_initial_weights(
    model: Transformer, folder: Path, recipe: Recipe, maker: CanvasMaker
) -> None:
    """Fill `model` from the checkpoint in `folder`: as it is if it has the same family, otherwise
    carried over (jobs/demo/train/carry_over.py). The head is multiplied by SOFTENING, which undoes
    the checkpoint's softening.

    Raises:
        UserError: the checkpoint does not fit.
    """
    if read_config(folder).family == model.config.family:
        load_weights(model, weight_map(model.config, recipe.family.NAMES), folder)
    else:
        carry_over(load_model(folder), model, next(maker.batches(recipe.stages[-1])))
    model.head.weight.data *= SOFTENING


def initialise(model: Transformer) -> None:
    """Random initial weights: the deviation follows a matrix's fan-in, and is smaller for matrices
    that write into the residual stream.

    The head starts as a scaled copy of the embedding, so that a token whose embedding reaches the
    last layer is already the likeliest: that is half of copying.
    """
    nn.init.normal_(model.embed.weight, std=EMBEDDING_STD)
    with torch.no_grad():
        model.head.weight.copy_(model.embed.weight * (HEAD_STD / EMBEDDING_STD))
    for name, parameter in model.layers.named_parameters():
        if parameter.ndim >= 2:
            std = parameter.shape[-1] ** -0.5
            if _leaf(name) in ("out", "down"):
                std /= math.sqrt(2 * model.config.num_layers)
            nn.init.normal_(parameter, std=std)


def optimizers_of(model: Transformer) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers except routers, AdamW for all other parameters."""
    config = model.config
    pieces = {"qkv": config.num_heads // config.num_kv_heads + 2, "gate_up": 2}
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        if name.startswith("layers.") and parameter.ndim >= 2 and ".router." not in name:
            matrices.append((parameter, pieces.get(_leaf(name), 1)))
        elif parameter.requires_grad:
            others.append(parameter)
    return [
        Muon(matrices, lr=MATRIX_LR, weight_decay=0.02),
        torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _leaf(name: str) -> str:
    """The last part of a parameter's name: `gate_up` for layers.0.mlp.gate_up.weight and for
    layers.1.mlp.experts.gate_up."""
    return name.removesuffix(".weight").rpartition(".")[2]
