"""Mixture of experts: chooses experts for each token, runs them, and sums their weighted outputs.

A token's output does not depend on the other tokens of the batch: each token chooses alone,
experts have no capacity limit, and the outputs of a token's experts are added in the order of its
choice.

Shape letters: Q query tokens of a batch, D hidden size, X experts, G groups of experts, C experts
that a token chooses, P = Q * C pairs of a token and an expert, I width of an expert; T tiles of N
rows, W of them at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.config import ExpertsConfig
from engine.model.layers import MLP
from engine.model.operations import TORCH, Operations
from engine.parallel import ALONE, TensorParallel

TILE_ROWS, WAVE = 32, 16
"""Rows of a tile, and tiles that are computed together, in `tiled`."""


class Router(nn.Module):
    """Chooses each token's experts by sigmoid or softmax scores. If experts are grouped, it chooses
    only within the best groups (arXiv 2412.19437, section 2.1.2).

    Parameters and arithmetic are float32 whatever the model's dtype: if two scores nearly tie,
    rounding could choose the other expert. The optional bias affects only which experts are chosen,
    never their weights. It gets no gradient: training adjusts it until all experts are chosen about
    equally often.
    """

    def __init__(self, hidden_size: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, hidden_size))
        if config.has_bias:
            self.bias = nn.Parameter(torch.zeros(config.num_experts), requires_grad=False)
        nn.init.normal_(self.weight, std=hidden_size**-0.5)

    def forward(self, x_QD: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts [Q, C], int64, and their weights [Q, C], float32."""
        with torch.autocast(x_QD.device.type, enabled=False):
            logits_QX = F.linear(x_QD.float(), self.weight)
        is_sigmoid = self.config.score == "sigmoid"
        scores_QX = logits_QX.sigmoid() if is_sigmoid else logits_QX.softmax(-1)
        ranked_QX = scores_QX.detach()
        chosen_QC = self._choose(ranked_QX + self.bias if self.config.has_bias else ranked_QX)
        weights_QC = scores_QX.gather(1, chosen_QC)
        if self.config.is_normalised:
            weights_QC = weights_QC / (weights_QC.sum(-1, keepdim=True) + 1e-20)
        return chosen_QC, weights_QC * self.config.routed_scale

    def _choose(self, scores_QX: Tensor) -> Tensor:
        config = self.config
        if config.num_chosen_groups < config.num_groups:
            scores_QGX = scores_QX.unflatten(1, (config.num_groups, -1))
            scores_QG = scores_QGX.topk(2, dim=-1).values.sum(-1)
            groups = scores_QG.topk(config.num_chosen_groups, dim=-1).indices
            is_open_QG = torch.zeros_like(scores_QG, dtype=torch.bool).scatter(1, groups, True)
            scores_QX = scores_QGX.masked_fill(~is_open_QG[..., None], -torch.inf).flatten(1)
        return scores_QX.topk(config.num_chosen, dim=-1).indices


class Experts(nn.Module):
    """X SwiGLU MLPs with their matrices stacked; gate and up are one matrix, gate rows first.

    In a tensor-parallel group each rank holds a slice of every expert, or, with expert parallelism,
    some experts whole. The output is then a partial sum, to be added up over the ranks.
    """

    def __init__(self, hidden_size: int, config: ExpertsConfig, parallel: TensorParallel) -> None:
        super().__init__()
        is_whole = parallel.split_experts
        every = range(config.num_experts)
        self.local = parallel.share(config.num_experts) if is_whole else every
        size = config.expert_size if is_whole else len(parallel.share(config.expert_size))
        self.has_all_experts = len(self.local) == config.num_experts
        X = len(self.local)
        self.gate_up = nn.Parameter(torch.empty(X, 2 * size, hidden_size))
        self.down = nn.Parameter(torch.empty(X, hidden_size, size))
        nn.init.normal_(self.gate_up, std=hidden_size**-0.5)
        nn.init.normal_(self.down, std=size**-0.5)

    def forward(self, x_QD: Tensor, chosen_QC: Tensor, weights_QC: Tensor) -> Tensor:
        """Sort the pairs by expert, so that each expert has one contiguous run of rows and needs
        one matrix product.

        Pairs whose expert is on another rank are sorted behind the last run and contribute 0.
        """
        local_P = chosen_QC.flatten() - self.local.start
        is_local_P = (local_P >= 0) & (local_P < len(self.local))
        experts_P = local_P if self.has_all_experts else local_P.where(is_local_P, len(self.local))
        experts_P, order_P = experts_P.sort(stable=True)
        x_PD = x_QD[order_P // chosen_QC.shape[1]]
        numbers_X = torch.arange(self.down.shape[0], device=x_QD.device)
        ends_X = torch.searchsorted(experts_P, numbers_X, right=True).int()
        if can_group(x_QD, self.gate_up, self.down):
            through = grouped
        else:
            through = tiled if x_QD.is_cuda else looped
        y_PD = torch.empty_like(x_PD)
        y_PD[order_P] = through(x_PD, ends_X, self.gate_up, self.down)
        if not self.has_all_experts:
            y_PD = y_PD.masked_fill(~is_local_P[:, None], 0)
        y_QCD = y_PD.unflatten(0, chosen_QC.shape)
        return (y_QCD * weights_QC[..., None]).sum(1).to(x_QD.dtype)


def can_group(x_QD: Tensor, *stacks: Tensor) -> bool:
    """Whether torch's grouped matrix product supports these tensors: rows must begin at multiples
    of 16 bytes, and a GPU supports bfloat16 only."""
    dtypes = (torch.bfloat16,) if x_QD.is_cuda else (torch.bfloat16, torch.float32)
    itemsize = x_QD.element_size()
    widths = [x_QD.shape[1], *(size for stack in stacks for size in stack.shape[1:])]
    return x_QD.dtype in dtypes and all(width * itemsize % 16 == 0 for width in widths)


def grouped(x_PD: Tensor, ends_X: Tensor, gate_up_XID: Tensor, down_XDI: Tensor) -> Tensor:
    """The experts' outputs, [P, D], by torch's grouped matrix product. `x_PD` is sorted by expert;
    ends_X[e] is the end of expert e's run. Rows behind the last run come out undefined."""
    gate, up = F.grouped_mm(x_PD, gate_up_XID.mT, offs=ends_X).chunk(2, dim=-1)
    return F.grouped_mm(F.silu(gate) * up, down_XDI.mT, offs=ends_X)


def looped(x_PD: Tensor, ends_X: Tensor, gate_up_XID: Tensor, down_XDI: Tensor) -> Tensor:
    """The same as `grouped`, one expert at a time: its reference, and the fallback on a CPU for
    dtypes and sizes that it does not support. It reads the host: the ends of all runs."""
    y_PD, start = torch.empty_like(x_PD), 0
    for expert, end in enumerate(ends_X.tolist()):
        gate, up = F.linear(x_PD[start:end], gate_up_XID[expert]).chunk(2, dim=-1)
        y_PD[start:end] = F.linear(F.silu(gate) * up, down_XDI[expert])
        start = end
    return y_PD


def tiled(x_PD: Tensor, ends_X: Tensor, gate_up_XID: Tensor, down_XDI: Tensor) -> Tensor:
    """The same as `grouped`, for any dtype and size, without reading the host: a GPU's fallback.

    Each expert's run is cut into tiles of TILE_ROWS rows, of which the last is not full. The host
    knows the most tiles that there can be. WAVE tiles at a time, rows and copies of their experts'
    matrices go through one batched product, so that memory holds WAVE experts more. Tiles behind
    the last one, and rows behind the end of a run, are computed and dropped.
    """
    (P, D), X = x_PD.shape, ends_X.shape[0]
    counts_X = ends_X.diff(prepend=ends_X.new_zeros(1))
    tiles_X = (counts_X + TILE_ROWS - 1) // TILE_ROWS
    last_X = tiles_X.cumsum(0)
    tile_T = torch.arange(P // TILE_ROWS + min(X, P), device=x_PD.device)
    expert_T = torch.searchsorted(last_X, tile_T, right=True)
    is_tile_T = expert_T < X
    expert_T = expert_T.clamp(max=X - 1)
    first_T = (ends_X - counts_X + TILE_ROWS * (tiles_X - last_X))[expert_T] + TILE_ROWS * tile_T
    row_TN = first_T[:, None] + torch.arange(TILE_ROWS, device=x_PD.device)
    is_row_TN = (row_TN < ends_X[expert_T, None]) & is_tile_T[:, None]
    row_TN = row_TN.where(is_row_TN, P)
    y_PD = x_PD.new_empty(P + 1, D)
    for expert_W, row_WN in zip(expert_T.split(WAVE), row_TN.split(WAVE), strict=True):
        x_WND = x_PD[row_WN.clamp(max=P - 1)]
        gate, up = torch.bmm(x_WND, gate_up_XID[expert_W].mT).chunk(2, dim=-1)
        y_PD[row_WN] = torch.bmm(F.silu(gate) * up, down_XDI[expert_W].mT)
    return y_PD[:P]


class MoE(nn.Module):
    """Router and experts: the weighted sum of the chosen experts, plus the shared expert if any."""

    def __init__(
        self, hidden_size: int, config: ExpertsConfig, parallel: TensorParallel = ALONE
    ) -> None:
        super().__init__()
        self.router = Router(hidden_size, config)
        self.experts = Experts(hidden_size, config, parallel)
        shared_size = len(parallel.share(config.shared_size))
        self.shared = MLP(hidden_size, shared_size) if config.shared_size else None

    def forward(self, h_QD: Tensor, ops: Operations = TORCH) -> Tensor:
        return ops.moe(h_QD, self)


def keep_routers_float32(model: nn.Module) -> None:
    """Convert every router back to float32, after the model was converted to another dtype."""
    for module in model.modules():
        if isinstance(module, Router):
            module.float()
