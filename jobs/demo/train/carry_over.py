"""Turns the weights of the full-attention demo model into initial weights for the block-causal one.

LLaDA2 was not trained from scratch either, but from an autoregressive model (arXiv 2512.15745), and
the experts of a mixture can start as copies of an MLP (arXiv 2212.05055).

Carried over exactly: embedding, head, norms, values, output projections, and the MLPs. The first
layer's MLP stays as it is. In every other layer the MLP's first neurons become the shared expert,
and its other neurons become each of the experts.

Carried over approximately: queries and keys. Their slowest pairs are no longer rotated, and their
length becomes a constant of the layer (the norm's weight). The pairs that are still rotated move to
the front of the head, where partial rotary embedding expects them.

Shape letters as in engine/model/layers.py.
"""

import torch
from torch import Tensor, nn

from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer
from jobs.demo.train.objective import learnt_logits
from jobs.demo.train.states import Batch


@torch.no_grad()
def carry_over(source: Transformer, target: Transformer, batch: Batch) -> None:
    """Fill all parameters of `target` except its routers from `source`. The source's queries and
    keys on `batch` give the scale of the target's query and key norms.

    Raises:
        UserError: the shapes of the two models do not fit.
    """
    _check_shapes(source.config, target.config)
    theirs, ours = source.state_dict(), target.state_dict()
    lengths = _qk_lengths(source, batch)
    for name, weights in theirs.items():
        layer = name.removeprefix("layers.").split(".")[0]
        if name.endswith("attn.qkv.weight"):
            ours[name].copy_(_reordered(weights, target.config))
            for part, length in zip("qk", lengths[int(layer)], strict=True):
                ours[f"layers.{layer}.attn.{part}_norm.weight"].fill_(length)
        elif name in ours:
            ours[name].copy_(weights)
        elif name.endswith("mlp.gate_up.weight"):
            _split_mlp(weights, theirs[f"layers.{layer}.mlp.down.weight"], ours, layer)
    assert target.config.experts is not None, "checked above"
    # The router's weights of a token add up to routed_scale, not to 1.
    for name, weights in ours.items():
        if name.endswith("experts.down"):
            weights /= target.config.experts.routed_scale


def _check_shapes(source: ModelConfig, target: ModelConfig) -> None:
    for name in (
        "vocab_size",
        "hidden_size",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "head_dim",
    ):
        if getattr(source, name) != getattr(target, name):
            raise UserError(
                f"model {name}={getattr(source, name)} cannot initialise a model of "
                f"{name}={getattr(target, name)}: give --init a checkpoint of the same shape"
            )
    experts = target.experts
    if source.experts is not None or experts is None:
        raise UserError(
            f"a {source.family} checkpoint cannot initialise a {target.family} model: only one "
            "without experts can initialise one with experts; give --init another folder"
        )
    if experts.shared_size + experts.expert_size != source.mlp_size:
        raise UserError(
            f"model mlp_size={source.mlp_size} is not shared_size={experts.shared_size} + "
            f"expert_size={experts.expert_size}: give --init a checkpoint of the same shape"
        )


def _reordered(qkv: Tensor, config: ModelConfig) -> Tensor:
    """The rows of each q and k head in the order of partial rotary embedding: the first halves of
    the R fastest pairs (i, i + E/2), then their second halves, then the rows that are not rotated.
    """
    E, R = config.head_dim, (config.rotary_dim or config.head_dim) // 2
    fast = [*range(R), *range(E // 2, E // 2 + R)]
    slow = [i for i in range(E) if i not in fast]
    heads = qkv.unflatten(0, (-1, E)).clone()
    num_rotated = config.num_heads + config.num_kv_heads
    heads[:num_rotated] = heads[:num_rotated][:, [*fast, *slow]]
    return heads.flatten(0, 1)


def _split_mlp(gate_up: Tensor, down: Tensor, ours: dict[str, Tensor], layer: str) -> None:
    """Copy an MLP's first neurons to the shared expert, and the others to every expert."""
    root = f"layers.{layer}.mlp"
    num_shared = ours[f"{root}.shared.down.weight"].shape[1]
    gate, up = gate_up.chunk(2)
    ours[f"{root}.shared.gate_up.weight"].copy_(torch.cat((gate[:num_shared], up[:num_shared])))
    ours[f"{root}.shared.down.weight"].copy_(down[:, :num_shared])
    ours[f"{root}.experts.gate_up"].copy_(torch.cat((gate[num_shared:], up[num_shared:])))
    ours[f"{root}.experts.down"].copy_(down[:, num_shared:])


def _qk_lengths(source: Transformer, batch: Batch) -> list[tuple[float, float]]:
    """For each layer: the root mean square of the entries of its queries, and of its keys."""
    config, lengths = source.config, []
    q_rows = config.num_heads * config.head_dim
    kv_rows = config.num_kv_heads * config.head_dim

    def note(module: nn.Module, inputs: object, qkv: Tensor) -> None:
        q, k, _ = qkv.split((q_rows, kv_rows, kv_rows), dim=-1)
        lengths.append((q.square().mean().sqrt().item(), k.square().mean().sqrt().item()))

    projections = [m for name, m in source.named_modules() if name.endswith("attn.qkv")]
    handles = [projection.register_forward_hook(note) for projection in projections]
    learnt_logits(source, batch)
    for handle in handles:
        handle.remove()
    return lengths
