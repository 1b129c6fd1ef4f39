"""One transformer for all families, described by a ModelConfig.

It knows no batch, cache or mask: the query tokens of any number of sequences come packed in one
row, with their positions, and `attend` decides who sees whom. Shape letters as in
engine/model/layers.py; M asked positions, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.config import ModelConfig
from engine.model.layers import MLP, Attend, Attention, RMSNorm, rotary_table
from engine.model.moe import MoE
from engine.parallel import ALONE, TensorParallel


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attn = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        experts = config.experts
        if experts is None or layer < experts.num_dense_layers:
            self.mlp: nn.Module = MLP(config.hidden_size, config.mlp_size)
        else:
            self.mlp = MoE(config.hidden_size, experts)

    def forward(self, x_QD: Tensor, cos_QR: Tensor, sin_QR: Tensor, attend: Attend) -> Tensor:
        x_QD = x_QD + self.attn(self.attn_norm(x_QD), cos_QR, sin_QR, attend)
        return x_QD + self.mlp(self.mlp_norm(x_QD))


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig, parallel: TensorParallel = ALONE) -> None:
        super().__init__()
        self.config = config
        self.parallel = parallel
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        if not config.tied_head:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, x_QD: Tensor, positions_Q: Tensor, attend: Attend) -> Tensor:
        """Input embeddings, as `embed` gives them, and positions, int64 [Q] -> hidden states
        [Q, D] before the last norm."""
        rotary_dim = self.config.rotary_dim or self.config.head_dim
        cos_QR, sin_QR = rotary_table(positions_Q, rotary_dim, self.config.rope_theta)
        for layer in self.layers:
            x_QD = layer(x_QD, cos_QR, sin_QR, attend)
        return x_QD

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Hidden states of the asked positions [M, D] -> logits, float32 [M, V]."""
        head = self.embed.weight if self.config.tied_head else self.head.weight
        return F.linear(self.norm(hidden_MD), head).float()
