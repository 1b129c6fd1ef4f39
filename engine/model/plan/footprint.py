"""How much memory a layout takes on each GPU, and how many sequences fit in the rest.

Weights are counted on a model built as a rank builds it, but on torch's meta device, which
allocates nothing. K and V are computed by the engine's own functions; logits by the bound that the
engine enforces. Only activations are an estimate. If ranks differ, the largest figure counts.

Shape letters: D hidden size, H query heads and K key/value heads of a rank, E head size, C
experts that a token chooses, X experts.
"""

import math
from dataclasses import dataclass, replace
from itertools import count

import torch

from engine.config import BYTES_PER_LOGIT, EngineConfig
from engine.decoding.filters import most_bytes_per_logit
from engine.errors import UserError
from engine.guidance import bytes_per_guided_logit
from engine.legal import check_shares
from engine.memory import fitting_pages, slot_bytes
from engine.model.config import ExpertsConfig, ModelConfig
from engine.model.moe import Router, keep_routers_float32
from engine.model.transformer import Transformer
from engine.parallel import TensorParallel

GB = 10**9


class PlannedRank(TensorParallel):
    """A rank without a process group: it knows its shares, so that they can be counted, but cannot
    communicate, so it cannot compute."""

    def __init__(self, rank: int, size: int, split_experts: bool = False) -> None:
        super().__init__(split_experts=split_experts)
        self.rank, self.size = rank, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The model, engine settings and canvas length to plan for. Does not depend on the GPUs."""

    model: ModelConfig
    dtype: torch.dtype
    engine: EngineConfig
    canvas_len: int
    """Canvas positions of every sequence, in whole blocks if the model is block-causal."""

    @property
    def pages_of_sequence(self) -> int:
        return self.engine.pages_for(self.canvas_len)

    @property
    def num_query_tokens(self) -> int:
        """Query tokens of the largest forward. A span longer than iteration_tokens is not cut."""
        return max(self.engine.iteration_tokens, self.canvas_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory on the rank that needs the most, in bytes."""

    num_ranks: int
    """Ranks that hold one model together."""
    split_experts: bool
    """Each rank holds some experts whole; otherwise it holds a slice of every expert."""
    weights: int
    page: int
    """K and V of one page."""
    logits: int
    activations: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """The sequences that one group has room for, on GPUs of a given size."""

    memory_fraction: float
    """The engine.memory_fraction to set: the requested one, or lower (in hundredths) if the rest
    would not hold logits and activations."""
    num_sequences: int
    refusal: str | None = None
    """Why there is no room for even one sequence; None if there is."""


def can_split(config: ModelConfig, num_ranks: int) -> bool:
    """Whether the engine can split the model over this many ranks."""
    try:
        check_shares(config, EngineConfig(tensor_parallel=num_ranks))
    except UserError:
        return False
    return True


def footprints(setup: Setup, num_ranks: int) -> list[Footprint]:
    """The footprint with a slice of each expert on every rank, and, if it differs, the one with
    whole experts."""
    sliced = _footprint(setup, num_ranks, split_experts=False)
    if setup.model.experts is None or num_ranks == 1:
        return [sliced]
    whole = _footprint(setup, num_ranks, split_experts=True)
    return [sliced] if replace(whole, split_experts=False) == sliced else [sliced, whole]


def capacity_of(setup: Setup, footprint: Footprint, gpu_bytes: int) -> Capacity:
    """How many sequences' K and V fit beside the weights, logits and activations."""
    engine, free = setup.engine, gpu_bytes - footprint.weights
    rest = footprint.logits + footprint.activations
    if free <= 0:
        return Capacity(0.0, 0, f"the weights take {readable(footprint.weights)}")
    fraction = min(engine.memory_fraction, math.floor(100 * (1 - rest / free)) / 100)
    if fraction <= 0:
        left = f"the weights leave {readable(free)}"
        return Capacity(0.0, 0, f"{left}, logits and activations need about {readable(rest)}")
    pages = fitting_pages(replace(engine, memory_fraction=fraction), footprint.page, free)
    num_sequences = pages // setup.pages_of_sequence
    if num_sequences:
        return Capacity(fraction, num_sequences)
    left = f"{readable(int(fraction * free))} are left for K and V"
    needed = readable(setup.pages_of_sequence * footprint.page)
    return Capacity(fraction, 0, f"{left}, a sequence needs {needed}")


def least_gpu_gb(setup: Setup, footprint: Footprint) -> int:
    """The smallest GPU memory, in whole GB, with room for one sequence."""
    sizes = count(footprint.weights // GB)
    return next(gb for gb in sizes if capacity_of(setup, footprint, gb * GB).refusal is None)


def planned_model(config: ModelConfig, dtype: torch.dtype, parallel: TensorParallel) -> Transformer:
    """The model that load_model would build on this rank, on the meta device."""
    with torch.device("meta"):
        model = Transformer(config, parallel)
    model = model.to(dtype)
    keep_routers_float32(model)
    return model


def weight_bytes(model: Transformer) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def layout_bytes(model: Transformer, engine: EngineConfig) -> int:
    """Bytes of what the Triton kernels keep beside the parameters: in bfloat16, three parts of each
    router, whose float32 weight stays too."""
    if engine.kernels == "torch" or model.embed.weight.dtype != torch.bfloat16:
        return 0
    routers = (module for module in model.modules() if isinstance(module, Router))
    return sum(3 * router.weight.numel() * torch.bfloat16.itemsize for router in routers)


def logit_bytes(setup: Setup, parallel: TensorParallel) -> int:
    """Peak bytes for logits in a forward that computes them at all query tokens, with what takes
    the most: sampling in plain torch from filtered words, with guidance. At least one position is
    computed at a time."""
    most = BYTES_PER_LOGIT[True] + most_bytes_per_logit(parallel.size)
    most = max(most, bytes_per_guided_logit(most, setup.dtype.itemsize))
    position = parallel.longest_share(setup.model.vocab_size) * most
    return min(max(setup.engine.logits_bytes, position), setup.num_query_tokens * position)


def activation_bytes(setup: Setup, parallel: TensorParallel) -> int:
    """Peak bytes for activations in the largest forward, as an upper estimate: the tensors that
    live through all layers, plus the most expensive phase of a layer (engine/model/layers.py).
    Assumes a fused attention kernel, so that no tensor has size queries times context."""
    config = setup.model
    b, D, E = setup.dtype.itemsize, config.hidden_size, config.head_dim
    H = parallel.longest_share(config.num_heads)
    K = len(parallel.kv_heads(config.num_kv_heads))
    stays = 2 * b * D + 4 * E + 32  # embeddings, residual, rotary table, places
    packed = b * D + b * (H + 2 * K) * E  # attention's input; queries, keys and values
    phases = [
        # A norm: its input before the sum, what is added, the sum; two float32 copies.
        3 * b * D + 8 * D,
        packed + b * H * E + 12 * H * E,  # queries, normalised and rotated in float32
        # Queries, keys and values; attention's output, and that of one run or the projected output.
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
        # Input and output of each pair, plus its weighted float32 output or its expert activations.
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
        weights=max(weight_bytes(model) + layout_bytes(model, setup.engine) for model in models),
        page=setup.engine.page_size * max(slot_bytes(model) for model in models),
        logits=logit_bytes(setup, ranks[0]),
        activations=activation_bytes(setup, ranks[0]),
    )
