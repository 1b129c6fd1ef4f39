"""Which experts a token passes through, with what weights, and each pair's rank among its expert's.

Shape letters: M tokens, D hidden size, X experts, C experts that a token chooses, G groups of
experts.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.common import FUSES, power_of_two
from engine.kernels.linear import linear


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterWeights:
    """What Router of engine/model/moe.py has, its matrix laid out for `route`."""

    parts: Tensor
    """bf16 [3 X, D], which add up to the float32 matrix to 2^-24 (`split_in_three`), for hidden
    states in bf16; for others the matrix itself, float32 [X, D]."""
    bias_X: Tensor | None
    """float32."""
    num_chosen: int
    is_sigmoid: bool
    is_normalised: bool
    scale: float
    num_groups: int
    num_chosen_groups: int
    counts_X: Tensor
    """int32 scratch, zeros before and after every layer; all layers on one stream share it."""
    own_below: int = 0
    """Below so many rows multiply by engine/kernels/linear.py rather than cuBLAS, where cuBLAS's
    bits depend on the number of rows. Float32 parts always are."""

    @property
    def num_experts(self) -> int:
        return self.counts_X.shape[0]


def split_in_three(weight_XD: Tensor) -> Tensor:
    """float32 [X, D] -> bf16 [3 X, D]: what is left of it after each rounding."""
    first = weight_XD.bfloat16()
    rest = weight_XD - first.float()
    second = rest.bfloat16()
    return torch.cat((first, second, (rest - second.float()).bfloat16())).contiguous()


def route(
    h_MD: Tensor, router: RouterWeights, num_rows: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen experts, int32 [M, C], their weights, float32, and each pair's rank among its
    expert's pairs, int32. The counts grow by what was chosen.

    Rows from `num_rows` (int32 [1], on the device) on choose no expert: -1, with weights of 0. A
    row whose scores are not all finite has weights that are NaN.
    """
    M, C, X = h_MD.shape[0], router.num_chosen, router.num_experts
    logits = router_logits(h_MD, router)
    chosen_MC, rank_MC = (h_MD.new_empty((M, C), dtype=torch.int32) for _ in range(2))
    weights_MC = h_MD.new_empty((M, C), dtype=torch.float32)
    has_bias = router.bias_X is not None
    route_kernel[(M,)](
        logits, router.bias_X if has_bias else logits, chosen_MC, weights_MC, rank_MC,
        router.counts_X, router.counts_X if num_rows is None else num_rows, float(router.scale),
        X=X, XP=power_of_two(X), C=C, CP=power_of_two(C), PARTS=router.parts.shape[0] // X,
        SIGMOID=router.is_sigmoid, BIAS=has_bias, NORMALISE=router.is_normalised,
        G=router.num_groups, GC=router.num_chosen_groups, PADDED=num_rows is not None,
        num_warps=1 if X <= 64 else 2, enable_fp_fusion=FUSES,
    )  # fmt: skip
    return chosen_MC, weights_MC, rank_MC


def router_logits(h_MD: Tensor, router: RouterWeights) -> Tensor:
    """The products with each part, float32 [M, 3 X] or [M, X].

    Products of bf16 parts are exact in float32, so that only the order of the sum differs from a
    float32 linear's, and, other than there, it does not depend on M.
    """
    if router.parts.dtype == torch.float32:
        return linear(h_MD.float(), router.parts)
    assert h_MD.dtype == router.parts.dtype, "a router in parts is for hidden states in bfloat16"
    if h_MD.shape[0] < router.own_below:
        return linear(h_MD, router.parts, out_dtype=torch.float32)
    return torch.mm(h_MD, router.parts.t(), out_dtype=torch.float32)


def route_reference(h_MD: Tensor, router: RouterWeights) -> tuple[Tensor, Tensor]:
    """Router of engine/model/moe.py on the sum of the parts: chosen int64 [M, C], weights."""
    X, C = router.num_experts, router.num_chosen
    logits_MX = F.linear(h_MD.float(), router.parts.float().unflatten(0, (-1, X)).sum(0))
    scores_MX = logits_MX.sigmoid() if router.is_sigmoid else logits_MX.softmax(-1)
    ranked_MX = scores_MX if router.bias_X is None else scores_MX + router.bias_X
    if router.num_chosen_groups < router.num_groups:
        ranked = ranked_MX.unflatten(1, (router.num_groups, -1))
        score_MG = ranked.topk(2, dim=-1).values.sum(-1)
        groups = score_MG.topk(router.num_chosen_groups, dim=-1).indices
        is_open_MG = torch.zeros_like(score_MG, dtype=torch.bool).scatter(1, groups, True)
        ranked_MX = ranked.masked_fill(~is_open_MG[..., None], -torch.inf).flatten(1)
    chosen_MC = ranked_MX.topk(C, dim=-1).indices
    weights_MC = scores_MX.gather(1, chosen_MC)
    if router.is_normalised:
        weights_MC = weights_MC / (weights_MC.sum(-1, keepdim=True) + 1e-20)
    return chosen_MC, weights_MC * router.scale


@triton.jit
def route_kernel(
    logits_ptr, bias_ptr, chosen_ptr, weights_ptr, rank_ptr, counts_ptr, num_rows_ptr, scale,
    X: tl.constexpr, XP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, PARTS: tl.constexpr,
    SIGMOID: tl.constexpr, BIAS: tl.constexpr, NORMALISE: tl.constexpr, G: tl.constexpr,
    GC: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One token: scores, open groups, the best C, and each pair's rank among its expert's. XP, CP:
    X and C up to powers of two."""
    m = tl.program_id(0).to(tl.int64)
    x = tl.arange(0, XP)
    c = tl.arange(0, CP)
    if PADDED:
        if m >= tl.load(num_rows_ptr):
            tl.store(chosen_ptr + m * C + c, tl.full([CP], -1, tl.int32), mask=c < C)
            tl.store(weights_ptr + m * C + c, tl.zeros([CP], tl.float32), mask=c < C)
            return
    logit = tl.load(logits_ptr + m * (PARTS * X) + x, mask=x < X, other=float("-inf"))
    for part in tl.static_range(1, PARTS):
        logit += tl.load(logits_ptr + m * (PARTS * X) + part * X + x, mask=x < X, other=0.0)
    if SIGMOID:
        score = tl.where(x < X, 1.0 / (1.0 + tl.exp(-logit)), 0.0)
    else:
        e = tl.exp(logit - tl.max(logit, 0))
        score = e / tl.sum(e, 0)
    ranked = score
    if BIAS:
        ranked = score + tl.load(bias_ptr + x, mask=x < X, other=0.0)
    # A NaN compares with nothing: it must not let an expert be chosen that there is not.
    ranked = tl.where((x < X) & (ranked == ranked), ranked, float("-inf"))
    if GC < G:
        XG: tl.constexpr = X // G
        by_group = tl.reshape(ranked, [G, XG])
        is_top = tl.arange(0, XG)[None, :] == tl.argmax(by_group, 1)[:, None]
        second = tl.max(tl.where(is_top, float("-inf"), by_group), 1)
        group_score = tl.max(by_group, 1) + second
        g = tl.arange(0, G)
        is_open = tl.zeros([G], tl.int32)
        for _ in tl.static_range(GC):
            best = tl.argmax(group_score, 0)
            is_open = tl.where(g == best, 1, is_open)
            group_score = tl.where(g == best, float("-inf"), group_score)
        ranked = tl.reshape(tl.where(is_open[:, None] > 0, by_group, float("-inf")), [XP])
    chosen = tl.zeros([CP], tl.int32)
    weight = tl.zeros([CP], tl.float32)
    for i in tl.static_range(C):
        best = tl.argmax(ranked, 0)
        chosen = tl.where(c == i, best, chosen)
        weight = tl.where(c == i, tl.sum(tl.where(x == best, score, 0.0), 0), weight)
        ranked = tl.where(x == best, float("-inf"), ranked)
    if NORMALISE:
        weight = weight / (tl.sum(weight, 0) + 1e-20)
    # 0, or NaN if any score is.
    weight += tl.sum(score, 0) * 0.0
    rank = tl.atomic_add(counts_ptr + chosen, 1, mask=c < C, sem="relaxed")
    tl.store(chosen_ptr + m * C + c, chosen, mask=c < C)
    tl.store(weights_ptr + m * C + c, weight * scale, mask=c < C)
    tl.store(rank_ptr + m * C + c, rank, mask=c < C)
