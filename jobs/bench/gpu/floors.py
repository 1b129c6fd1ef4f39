"""The floor of a forward: what the card's own measured rates allow for its weights, K and V, and
products.

floor = sum over the parts of max(bytes / rate of bytes, FLOP / rate of FLOP); the cost model is
explained in docs/performance.md.

Letters: Q query tokens of a batch, M requested positions, D hidden size, H query heads, K key/value
heads, E head size, X experts, C experts that a token chooses.
"""

from dataclasses import dataclass
from typing import NamedTuple

from engine.model.config import ExpertsConfig, ModelConfig

BYTES_OF_2 = 2
"""Bytes of a value in bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the card was measured to do (jobs/bench/gpu/ceilings.py)."""

    copy_bytes_per_s: float
    """Bytes read and bytes written of a large copy, added up."""
    read_bytes_per_s: float
    """Bytes that are only read. Weights are: so this is the honest rate for most of a forward."""
    flop_per_s: float
    """Of a large product in bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The sizes of one forward over sequences that are alike."""

    num_query_tokens: int
    """Of all sequences."""
    num_sequences: int
    context: float
    """Positions that each query token attends to."""
    num_asked: float
    """Requested positions of all sequences: those whose logits are computed."""
    num_touched: float = 0.0
    """Experts of a layer that at least one query token chose."""


class Part(NamedTuple):
    """A part of a forward, added up over all layers."""

    name: str
    num_bytes: float
    flop: float
    times: int
    """How many times the part's bytes and FLOP occur, one after the other."""


def floor_ms(config: ModelConfig, forward: Forward, bytes_per_s: float, flop_per_s: float) -> float:
    return 1e3 * sum(
        part.times * max(part.num_bytes / bytes_per_s, part.flop / flop_per_s)
        for part in parts(config, forward)
    )


def parts(config: ModelConfig, forward: Forward) -> list[Part]:
    """The parts of a forward in bfloat16: bytes and FLOP of one occurrence, and how many there are.

    What does not count: embeddings, norms, rotary embeddings and the activations between the parts.
    """
    Q = forward.num_query_tokens
    linears = []
    for name, N, K, count in linear_shapes(config):
        # Behind the last attention only the requested positions are computed.
        lasts = int(
            name != "qkv" and (config.experts is None or name not in ("gate and up", "down"))
        )
        linears += [
            Part(name, BYTES_OF_2 * N * K, 2 * rows * N * K, times)
            for rows, times in ((Q, count - lasts), (forward.num_asked, lasts))
        ]
    H, K, E = config.num_heads, config.num_kv_heads, config.head_dim
    kv_bytes = BYTES_OF_2 * 2 * forward.num_sequences * forward.context * K * E
    attention = Part(
        "attention",
        kv_bytes + BYTES_OF_2 * 2 * Q * H * E,
        4 * Q * forward.context * H * E,
        config.num_layers,
    )
    V, D = config.vocab_size, config.hidden_size
    head = Part("head", BYTES_OF_2 * V * D, 2 * forward.num_asked * V * D, 1)
    return [*linears, attention, *_experts(config, forward), head]


def touched_at_random(experts: ExpertsConfig, num_tokens: float) -> float:
    """Experts that so many tokens choose together, if they choose at random. An upper bound: the
    tokens of a block are alike."""
    missed = (1 - experts.num_chosen / experts.num_experts) ** num_tokens
    return experts.num_experts * (1 - missed)


def touched_by_more(experts: ExpertsConfig, touched: float, times: float) -> float:
    """Experts that `times` as many sequences touch, if each touches other ones at random."""
    missed = (1 - touched / experts.num_experts) ** times
    return experts.num_experts * (1 - missed)


def linear_shapes(config: ModelConfig) -> list[tuple[str, int, int, int]]:
    """(name, outputs, inputs, how many) of every dense linear."""
    D, L, experts = config.hidden_size, config.num_layers, config.experts
    heads = config.num_heads * config.head_dim
    qkv = heads + 2 * config.num_kv_heads * config.head_dim
    dense = L if experts is None else experts.num_dense_layers
    linears = [("qkv", qkv, D, L), ("out", D, heads, L)]
    linears += [("gate and up", 2 * config.mlp_size, D, dense), ("down", D, config.mlp_size, dense)]
    if experts is not None:
        width, count = experts.shared_size, (L - dense) * bool(experts.shared_size)
        linears += [("shared gate and up", 2 * width, D, count), ("shared down", D, width, count)]
    return [linear for linear in linears if linear[3]]


def _experts(config: ModelConfig, forward: Forward) -> list[Part]:
    experts = config.experts
    if experts is None:
        return []
    weights = 3 * config.hidden_size * experts.expert_size
    count = config.num_layers - experts.num_dense_layers
    touched_last = min(forward.num_touched, touched_at_random(experts, forward.num_asked))
    its = []
    for num_tokens, num_touched, times in (
        (forward.num_query_tokens, forward.num_touched, count - 1),
        (forward.num_asked, touched_last, 1),
    ):
        pairs = num_tokens * experts.num_chosen
        num_bytes = BYTES_OF_2 * num_touched * weights
        num_bytes += BYTES_OF_2 * 2 * pairs * (config.hidden_size + experts.expert_size)
        its.append(Part("experts", num_bytes, 2 * pairs * weights, times))
    return its
