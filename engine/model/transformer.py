"""The one transformer that all families share, built from a ModelConfig.

It knows nothing of batches, caches or attention masks: the query tokens of any number of sequences
come packed in one row with their positions, and `attend` decides which of them attend to which.

In a tensor-parallel group each rank holds a share of the attention heads, the MLPs, the experts and
the output head's vocabulary. Every rank holds the whole embedding and computes the same hidden
states.

It is written with the operations of engine/model/operations.py, which also say how each of them is
computed. Between the layers go the residual x and its norm h.

Shape letters as in engine/model/layers.py; M asked positions, V the part of the vocabulary on this
rank.
"""

from typing import Any

from torch import Tensor, nn

from engine.model.config import ModelConfig
from engine.model.layers import MLP, Attend, Attention, RMSNorm, rotary_table
from engine.model.moe import MoE
from engine.model.operations import TORCH, Operations
from engine.parallel import ALONE, TensorParallel


class Layer(nn.Module):
    """Attention, then an MLP or experts, each with a norm before it and a residual around it."""

    def __init__(self, config: ModelConfig, layer: int, parallel: TensorParallel) -> None:
        super().__init__()
        self.parallel = parallel
        self.attn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attn = Attention(config, layer, parallel)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        experts = config.experts
        if experts is None or layer < experts.num_dense_layers:
            mlp_size = len(parallel.share(config.mlp_size))
            self.mlp: nn.Module = MLP(config.hidden_size, mlp_size)
        else:
            self.mlp = MoE(config.hidden_size, experts, parallel)

    def add_mlp(
        self, x_QD: Tensor, h_QD: Tensor, next_norm: RMSNorm, ops: Operations
    ) -> tuple[Tensor, Tensor]:
        """The residual and its `mlp_norm` -> the residual after the MLP or experts, and its
        `next_norm`; all [Q, D]."""
        if isinstance(self.mlp, MoE) and self.parallel.size == 1:
            return ops.add_moe_norm(x_QD, h_QD, self.mlp, next_norm)
        return ops.add_norm(x_QD, self.parallel.sum(self.mlp(h_QD, ops)), next_norm)


class Transformer(nn.Module):
    """Embedding, layers, final norm and output head; this rank's share of them in a group."""

    def __init__(self, config: ModelConfig, parallel: TensorParallel = ALONE) -> None:
        super().__init__()
        self.config = config
        self.parallel = parallel
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i, parallel) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.words = parallel.share(config.vocab_size)
        if not config.tied_head:
            self.head = nn.Linear(config.hidden_size, len(self.words), bias=False)

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads on this rank."""
        return len(self.parallel.kv_heads(self.config.num_kv_heads))

    @property
    def head_weight(self) -> Tensor:
        """The output head's weight for the words on this rank, [V, D]."""
        if self.config.tied_head:
            return self.embed.weight[self.words.start : self.words.stop]
        return self.head.weight

    def forward(
        self,
        x_QD: Tensor,
        positions_Q: Tensor,
        attend: Attend,
        ops: Operations = TORCH,
        rows_N: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of the query tokens, as `embed` gives them, and their canvas positions, int64
        [Q] -> hidden states [Q, D] after the final norm.

        With `rows_N`, int64 [N], only those of these rows, [N, D]: behind the last attention, which
        has written the last K and V, nothing is computed of the others."""
        layers: list[Any] = list(self.layers)
        if not layers:
            x_QD = x_QD if rows_N is None else x_QD.index_select(0, rows_N)
            return ops.add_norm(x_QD, None, self.norm)[1]
        rotary_dim = self.config.rotary_dim or self.config.head_dim
        rotary = rotary_table(positions_Q, rotary_dim, self.config.rope_theta)
        norms = [*(layer.attn_norm for layer in layers), self.norm]
        x_QD, h_QD = ops.add_norm(x_QD, None, norms[0])
        for layer, next_norm in zip(layers, norms[1:], strict=True):
            # One frame for both halves: a caller's names would keep tensors of the half before.
            o_QD = layer.attn.mixed(h_QD, *rotary, attend, ops)
            if rows_N is not None and layer is layers[-1]:
                if rows_N.shape[0] == 0:
                    return x_QD.new_empty((0, x_QD.shape[1]))
                o_QD, x_QD = o_QD.index_select(0, rows_N), x_QD.index_select(0, rows_N)
                ops = ops.of_selected()
            o_QD = layer.parallel.sum(ops.linear(o_QD, layer.attn.out))
            x_QD, h_QD = ops.add_norm(x_QD, o_QD, layer.mlp_norm)
            del o_QD
            x_QD, h_QD = layer.add_mlp(x_QD, h_QD, next_norm, ops)
        return h_QD

    def logits(self, hidden_MD: Tensor, ops: Operations = TORCH) -> Tensor:
        """Hidden states of the asked positions, as `forward` gives them, [M, D] -> logits [M, V] in
        the model's dtype."""
        return ops.head(hidden_MD, self.head_weight)
