"""The one transformer that all families share, built from a ModelConfig.

It knows nothing of batches, caches or attention masks: the query tokens of any number of sequences
come packed in one row with their positions, and `attend` decides which of them attend to which.

In a tensor-parallel group each rank holds a share of the attention heads, the MLPs, the experts and
the output head's vocabulary. Every rank holds the whole embedding and computes the same hidden
states.

Shape letters as in engine/model/layers.py; M asked positions, V the part of the vocabulary on this
rank.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.config import ModelConfig
from engine.model.layers import MLP, Attend, Attention, RMSNorm, rotary_table
from engine.model.moe import MoE
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

    def forward(self, x_QD: Tensor, cos_QR: Tensor, sin_QR: Tensor, attend: Attend) -> Tensor:
        x_QD = x_QD + self.parallel.sum(self.attn(self.attn_norm(x_QD), cos_QR, sin_QR, attend))
        return x_QD + self.parallel.sum(self.mlp(self.mlp_norm(x_QD)))


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

    def forward(self, x_QD: Tensor, positions_Q: Tensor, attend: Attend) -> Tensor:
        """Embeddings of the query tokens, as `embed` gives them, and their canvas positions, int64
        [Q] -> hidden states [Q, D] before the final norm."""
        rotary_dim = self.config.rotary_dim or self.config.head_dim
        cos_QR, sin_QR = rotary_table(positions_Q, rotary_dim, self.config.rope_theta)
        for layer in self.layers:
            x_QD = layer(x_QD, cos_QR, sin_QR, attend)
        return x_QD

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Hidden states of the asked positions, [M, D] -> logits, float32 [M, V]. Applies the final
        norm and the head."""
        tied = self.embed.weight[self.words.start : self.words.stop]
        head = tied if self.config.tied_head else self.head.weight
        return F.linear(self.norm(hidden_MD), head).float()
