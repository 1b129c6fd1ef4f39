"""What happens to a layer's packed projection before attention, in one pass: RMS norm of every
query and key head (where the model has it), rotary positions, and K and V written to their slots.

Shape letters: Q query tokens, H query heads, K key/value heads, E head size, F = (H + 2 K) E, R
rotary pairs; N pages, P positions of a page.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.common import FUSES, power_of_two


def norm_rotate_write(
    qkv_QF: Tensor,
    q_norm_E: Tensor | None,
    k_norm_E: Tensor | None,
    cos_QR: Tensor,
    sin_QR: Tensor,
    slots_Q: Tensor,
    k_NPKE: Tensor,
    v_NPKE: Tensor,
    eps: float,
) -> Tensor:
    """q_QHE, in the dtype of qkv. K and V of every token are at its slot afterwards.

    cos and sin are float32, slots int64 or int32, k_NPKE and v_NPKE contiguous. Bound by memory: on
    an H100 2.4 to 2.7 TB/s from 1024 tokens on, for heads 16/16, 16/4 and 32/32 of 128.
    """
    for x in (qkv_QF, cos_QR, sin_QR, k_NPKE, v_NPKE):
        assert x.is_contiguous(), "projections, angles and pages are contiguous"
    Q, (K, E), R = qkv_QF.shape[0], k_NPKE.shape[2:], cos_QR.shape[1]
    H = qkv_QF.shape[1] // E - 2 * K
    q_QHE = qkv_QF.new_empty((Q, H, E))
    heads = 1  # of one program: all queries, all keys or all values
    while heads < 16 and H % (2 * heads) == 0 and K % (2 * heads) == 0:
        heads *= 2
    has_norm = q_norm_E is not None
    norm_rotate_write_kernel[(Q, (H + 2 * K) // heads)](
        qkv_QF, q_norm_E if has_norm else qkv_QF, k_norm_E if has_norm else qkv_QF,
        cos_QR, sin_QR, slots_Q, q_QHE, k_NPKE, v_NPKE, eps,
        H=H, K=K, E=E, R=R, RP=power_of_two(R), SP=power_of_two(E - 2 * R), HB=heads,
        NORM=has_norm, num_warps=4 if heads >= 8 else 1, enable_fp_fusion=FUSES,
    )  # fmt: skip
    return q_QHE


def norm_rotate_write_reference(
    qkv_QF: Tensor,
    q_norm_E: Tensor | None,
    k_norm_E: Tensor | None,
    cos_QR: Tensor,
    sin_QR: Tensor,
    slots_Q: Tensor,
    k_NPKE: Tensor,
    v_NPKE: Tensor,
    eps: float,
) -> Tensor:
    """RMSNorm and rotate of engine/model/layers.py, KVPages.write of engine/cache/kv.py."""
    (K, E), R = k_NPKE.shape[2:], cos_QR.shape[1]

    def norm(x: Tensor, weight_E: Tensor | None) -> Tensor:
        if weight_E is None:
            return x
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return wide.to(x.dtype) * weight_E

    def rotate(x_QHE: Tensor) -> Tensor:
        low, high, rest = x_QHE.float().split((R, R, E - 2 * R), dim=-1)
        cos, sin = cos_QR[:, None], sin_QR[:, None]
        return torch.cat((low * cos - high * sin, high * cos + low * sin, rest), -1).to(x_QHE.dtype)

    heads = qkv_QF.view(qkv_QF.shape[0], -1, E)
    q, k, v = heads.split((heads.shape[1] - 2 * K, K, K), dim=1)
    q, k = rotate(norm(q, q_norm_E)), rotate(norm(k, k_norm_E))
    k_NPKE.flatten(0, 1).index_copy_(0, slots_Q.long(), k)
    v_NPKE.flatten(0, 1).index_copy_(0, slots_Q.long(), v)
    return q


@triton.jit
def norm_rotate_write_kernel(
    qkv_ptr, q_norm_ptr, k_norm_ptr, cos_ptr, sin_ptr, slots_ptr, q_ptr, k_ptr, v_ptr, eps,
    H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, R: tl.constexpr, RP: tl.constexpr,
    SP: tl.constexpr, HB: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One token, HB of its heads: the first of each rotary pair, the second, and the rest. RP, SP:
    the pairs and the rest up to powers of two."""
    t = tl.program_id(0)
    h0 = tl.program_id(1) * HB
    heads = h0 + tl.arange(0, HB)
    REST: tl.constexpr = E - 2 * R
    dtype = q_ptr.dtype.element_ty
    base = qkv_ptr + t.to(tl.int64) * ((H + 2 * K) * E) + heads[:, None] * E
    slot = tl.load(slots_ptr + t).to(tl.int64)
    r = tl.arange(0, RP)
    is_pair = (r < R)[None, :]
    low = tl.load(base + r[None, :], mask=is_pair, other=0.0).to(tl.float32)
    high = tl.load(base + R + r[None, :], mask=is_pair, other=0.0).to(tl.float32)
    is_q = h0 < H
    is_v = h0 >= H + K
    if is_q:
        to = q_ptr + t.to(tl.int64) * (H * E) + heads[:, None] * E
        norm_ptr = q_norm_ptr
    elif is_v:
        to = v_ptr + slot * (K * E) + (heads[:, None] - (H + K)) * E
        norm_ptr = k_norm_ptr
    else:
        to = k_ptr + slot * (K * E) + (heads[:, None] - H) * E
        norm_ptr = k_norm_ptr
    if REST > 0:
        s = tl.arange(0, SP)
        is_rest = (s < REST)[None, :]
        rest = tl.load(base + 2 * R + s[None, :], mask=is_rest, other=0.0).to(tl.float32)
    if not is_v:
        if NORM:
            square = tl.sum(low * low, 1) + tl.sum(high * high, 1)
            if REST > 0:
                square += tl.sum(rest * rest, 1)
            rstd = tl.rsqrt(square / E + eps)[:, None]
            # As the model rounds: the normalised value, then its product with the weight.
            low_weight = tl.load(norm_ptr + r, mask=r < R, other=0.0)[None, :]
            high_weight = tl.load(norm_ptr + R + r, mask=r < R, other=0.0)[None, :]
            low = ((low * rstd).to(dtype) * low_weight).to(dtype).to(tl.float32)
            high = ((high * rstd).to(dtype) * high_weight).to(dtype).to(tl.float32)
            if REST > 0:
                rest_weight = tl.load(norm_ptr + 2 * R + s, mask=s < REST, other=0.0)[None, :]
                rest = ((rest * rstd).to(dtype) * rest_weight).to(dtype).to(tl.float32)
        cos = tl.load(cos_ptr + t * R + r, mask=r < R, other=0.0)[None, :]
        sin = tl.load(sin_ptr + t * R + r, mask=r < R, other=0.0)[None, :]
        turned = low * cos - high * sin
        high = high * cos + low * sin
        low = turned
    tl.store(to + r[None, :], low.to(dtype), mask=is_pair)
    tl.store(to + R + r[None, :], high.to(dtype), mask=is_pair)
    if REST > 0:
        tl.store(to + 2 * R + s[None, :], rest.to(dtype), mask=is_rest)
