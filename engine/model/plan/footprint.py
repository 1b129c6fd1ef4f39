"""What does a layout take of each GPU, and how many sequences does that leave room for?

Weights are counted on a model that a rank really builds, without memory (torch's meta device); K
and V by the engine's own functions; logits by the bound that the engine keeps. Activations alone
are an estimate. Of unequal ranks the largest counts.

Shape letters: D hidden size, H query heads and K key/value heads of a rank, E head size, C
experts that a token chooses, X experts.
"""

import math
from dataclasses import dataclass, replace
from itertools import count

import torch

from engine.config import BYTES_PER_LOGIT, EngineConfig
from engine.legal import check_shares
from engine.memory import fitting_pages, slot_bytes
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.moe import keep_routers_wide
from engine.model.transformer import Transformer
from engine.parallel import TensorParallel

GB = 10**9


class PlannedRank(TensorParallel):
    """A rank that knows its shares and has nobody to talk to: to be counted, not to compute."""

    def __init__(self, rank: int, size: int, split_experts: bool = False) -> None:
        super().__init__(split_experts=split_experts)
        self.rank, self.size = rank, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is planned for, whatever the GPUs."""

    model: ModelConfig
    dtype: torch.dtype
    engine: EngineConfig
    canvas_len: int
    """Of every sequence, as the engine lays it out."""

    @property
    def pages_of_sequence(self) -> int:
        return self.engine.pages_for(self.canvas_len)

    @property
    def num_query_tokens(self) -> int:
        """Of the largest forward: a span longer than iteration_tokens has one to itself."""
        return max(self.engine.iteration_tokens, self.canvas_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Of the rank that takes most, in bytes."""

    num_ranks: int
    """That hold one model together."""
    split_experts: bool
    weights: int
    page: int
    """K and V of one page."""
    logits: int
    activations: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a GPU's memory gives a group."""

    memory_fraction: float
    """What engine.memory_fraction may be: as asked for, or less, in hundredths, so that the rest
    holds logits and activations."""
    num_sequences: int
    refusal: str | None = None
    """Why there is room for no sequence."""


def can_split(config: ModelConfig, num_ranks: int) -> bool:
    """Whether the engine shares a model out to so many ranks."""
    try:
        check_shares(config, EngineConfig(tensor_parallel=num_ranks))
    except ValueError:
        return False
    return True


def footprints(setup: Setup, num_ranks: int) -> list[Footprint]:
    """With a slice of each expert on every rank, and with whole experts where that differs."""
    sliced = _footprint(setup, num_ranks, split_experts=False)
    if setup.model.experts is None or num_ranks == 1:
        return [sliced]
    whole = _footprint(setup, num_ranks, split_experts=True)
    return [sliced] if replace(whole, split_experts=False) == sliced else [sliced, whole]


def grant(setup: Setup, taken: Footprint, gpu_bytes: int) -> Grant:
    """The sequences whose K and V fit beside everything else."""
    engine, free = setup.engine, gpu_bytes - taken.weights
    rest = taken.logits + taken.activations
    if free <= 0:
        return Grant(0.0, 0, f"the weights take {readable(taken.weights)}")
    fraction = min(engine.memory_fraction, math.floor(100 * (1 - rest / free)) / 100)
    if fraction <= 0:
        left = f"the weights leave {readable(free)}"
        return Grant(0.0, 0, f"{left}, logits and activations need about {readable(rest)}")
    pages = fitting_pages(replace(engine, memory_fraction=fraction), taken.page, free)
    num_sequences = pages // setup.pages_of_sequence
    if num_sequences:
        return Grant(fraction, num_sequences)
    left = f"{readable(int(fraction * free))} are left for K and V"
    needed = readable(setup.pages_of_sequence * taken.page)
    return Grant(fraction, 0, f"{left}, a sequence needs {needed}")


def least_gpu_gb(setup: Setup, taken: Footprint) -> int:
    """Whole GB of each GPU that hold one sequence."""
    sizes = count(taken.weights // GB)
    return next(gb for gb in sizes if grant(setup, taken, gb * GB).refusal is None)


def planned_model(config: ModelConfig, dtype: torch.dtype, parallel: TensorParallel) -> Transformer:
    """What load_model makes of a checkpoint on this rank, without memory."""
    with torch.device("meta"):
        model = Transformer(config, parallel)
    model = model.to(dtype)
    keep_routers_wide(model)
    return model


def weight_bytes(model: Transformer) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def logit_bytes(setup: Setup, parallel: TensorParallel) -> int:
    """The peak of a forward that asks for all its query tokens, some of them drawn."""
    num_words = parallel.longest_share(setup.model.vocab_size)
    piece = setup.engine.positions_of_a_piece(num_words, any_sampled=True)
    return min(piece, setup.num_query_tokens) * num_words * BYTES_PER_LOGIT[True]


def activation_bytes(setup: Setup, parallel: TensorParallel) -> int:
    """An estimate, from above, of what the largest forward holds at its peak: what stays through
    all layers, and the hungriest of a layer's phases (engine/model/layers.py). It takes attention
    for fused, so that nothing is as large as queries times context."""
    config = setup.model
    b, D, E = setup.dtype.itemsize, config.hidden_size, config.head_dim
    H = parallel.longest_share(config.num_heads)
    K = len(parallel.kv_heads(config.num_kv_heads))
    stays = 2 * b * D + 4 * E + 32  # embeddings, residual, rotary table, places
    packed = b * D + b * (H + 2 * K) * E  # attention's input; queries, keys and values
    phases = [
        8 * D,  # a norm: two float32 copies
        packed + b * H * E + 12 * H * E,  # queries, normalised and rotated in float32
        # Rotated; attention's output, beside that of a run or what leaves the layer.
        packed + b * (H + K) * E + b * H * E + max(b * H * E + 4 * H, b * D),
        2 * b * D + 4 * b * parallel.longest_share(config.mlp_size),  # input, output; gate and up
    ]
    if config.experts is not None:
        phases += _expert_phases(config.experts, b, D, parallel)
    return setup.num_query_tokens * (stays + max(phases))


def _expert_phases(config: ExpertsConfig, b: int, D: int, parallel: TensorParallel) -> list[int]:
    C, X, whole = config.num_chosen, config.num_experts, parallel.split_experts
    size = config.expert_size if whole else parallel.longest_share(config.expert_size)
    return [
        b * D + 4 * D + 20 * X,  # the router, in float32
        # A pair's input and output, and either the weighted output, float32, or the expert's width.
        (2 * b + 4) * D + C * (48 + 2 * b * D + max(4 * D, b * D + 4 * b * size)),
        3 * b * D + 4 * b * parallel.longest_share(config.shared_size),  # the shared expert
    ]


def readable(num_bytes: int) -> str:
    return f"{num_bytes / GB:.2f} GB" if num_bytes >= GB / 10 else f"{num_bytes / 1e6:.1f} MB"


def _footprint(setup: Setup, num_ranks: int, split_experts: bool) -> Footprint:
    ranks = [PlannedRank(rank, num_ranks, split_experts) for rank in range(num_ranks)]
    models = [planned_model(setup.model, setup.dtype, rank) for rank in ranks]
    return Footprint(
        num_ranks=num_ranks,
        split_experts=split_experts,
        weights=max(weight_bytes(model) for model in models),
        page=setup.engine.page_size * max(slot_bytes(model) for model in models),
        logits=logit_bytes(setup, ranks[0]),
        activations=activation_bytes(setup, ranks[0]),
    )
