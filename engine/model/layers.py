"""The layers that all families share: RMS norm, rotary embedding, attention and MLP.

In a tensor-parallel group each rank holds a share of the attention heads and of the MLP's width.
The output of Attention and MLP is then a partial sum, which the caller adds up over the ranks.

Shape letters: Q query tokens of a batch, D hidden size, H query heads, K key/value heads, E head
size, F = (H + 2 K) E, R rotary pairs (half of the rotated dimensions of a head), I width of an MLP.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from engine.model.config import ModelConfig
from engine.model.operations import TORCH, Operations
from engine.parallel import TensorParallel


class RMSNorm(nn.Module):
    """x / rms(x) * weight, with the statistics in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


def rotary_table(positions_Q: Tensor, rotary_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, float32, each [Q, R] (arXiv 2104.09864)."""
    angles_QR = positions_Q.float()[:, None] * _frequencies(rotary_dim, theta, positions_Q.device)
    return angles_QR.cos(), angles_QR.sin()


@cache
def _frequencies(rotary_dim: int, theta: float, device: torch.device) -> Tensor:
    """The angle of each rotary pair at position 1, float32 [R]; computed once for a device
    and then kept, because graphs have its address."""
    with torch.inference_mode(False):  # training may use them too
        exponents_R = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device)
        return theta ** (-exponents_R / rotary_dim)


def rotate(x_QHE: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
    """Rotate each pair (i, i + R) of every head by its angle; dimensions from 2R on stay unchanged.
    Computed in float32."""
    R = cos_QR.shape[1]
    low, high, rest = x_QHE.float().split((R, R, x_QHE.shape[-1] - 2 * R), dim=-1)
    cos, sin = cos_QR[:, None], sin_QR[:, None]
    return torch.cat((low * cos - high * sin, high * cos + low * sin, rest), -1).to(x_QHE.dtype)


class Attention(nn.Module):
    """Projects to queries, keys and values, calls `attend`, and has the projection back, which the
    transformer calls. Has this rank's share of the heads."""

    def __init__(self, config: ModelConfig, layer: int, parallel: TensorParallel) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        num_heads = len(parallel.share(config.num_heads))
        num_kv_heads = len(parallel.kv_heads(config.num_kv_heads))
        self.splits = (num_heads, num_kv_heads, num_kv_heads)
        qkv_size = sum(self.splits) * config.head_dim
        self.qkv = nn.Linear(config.hidden_size, qkv_size, bias=config.qkv_bias)
        self.out = nn.Linear(num_heads * config.head_dim, config.hidden_size, bias=False)
        self.q_norm, self.k_norm = (
            RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
            for _ in range(2)
        )

    def mixed(
        self, h_QD: Tensor, cos_QR: Tensor, sin_QR: Tensor, attend: "Attend", ops: Operations
    ) -> Tensor:
        """What attention gives the output projection, [Q, H E]."""
        return attend(self, ops.linear(h_QD, self.qkv), cos_QR, sin_QR).flatten(1)

    def heads(
        self, qkv_QF: Tensor, cos_QR: Tensor, sin_QR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(q_QHE, k_QKE, v_QKE) of the packed projection, queries and keys normalised and
        rotated."""
        heads = qkv_QF.view(qkv_QF.shape[0], -1, self.head_dim)
        q_QHE, k_QKE, v_QKE = heads.split(self.splits, dim=1)
        q_QHE = rotate(self.q_norm(q_QHE), cos_QR, sin_QR)
        return q_QHE, rotate(self.k_norm(k_QKE), cos_QR, sin_QR), v_QKE


Attend = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""(attention, qkv_QF, cos_QR, sin_QR) -> o_QHE: all that stands between the two projections of
attention. This function decides which positions attend to which, and where K and V are stored; the
layers know neither."""


def over_heads(mix: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> Attend:
    """Attention in plain torch. `mix` is (layer, q_QHE, k_QKE, v_QKE) -> o_QHE; it gets queries and
    keys that are normalised and rotated."""

    def attend(attention: Attention, qkv_QF: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
        return mix(attention.layer, *attention.heads(qkv_QF, cos_QR, sin_QR))

    return attend


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202); the gate and up projections are one matrix, gate rows first."""

    def __init__(self, hidden_size: int, mlp_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * mlp_size, bias=False)
        self.down = nn.Linear(mlp_size, hidden_size, bias=False)

    def forward(self, h_QD: Tensor, ops: Operations = TORCH) -> Tensor:
        return ops.linear(ops.swiglu(ops.linear(h_QD, self.gate_up)), self.down)
