"""silu(gate) * up (SwiGLU, arXiv 2002.05202).

Shape letters: M rows, I width of an MLP.
"""

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.common import FUSES, power_of_two


def swiglu(gate_up_MI: Tensor) -> Tensor:
    """[M, 2 I], gate first -> [M, I], in its dtype, computed in float32.

    Bound by memory: on an H100 2.7 to 2.9 TB/s from 1024 rows on at I = 6144 and 12288.
    """
    assert gate_up_MI.is_contiguous(), "rows are contiguous"
    M, I = gate_up_MI.shape[0], gate_up_MI.shape[1] // 2
    out_MI = gate_up_MI.new_empty((M, I))
    block = min(power_of_two(I), 2048)
    swiglu_kernel[(M, triton.cdiv(I, block))](
        gate_up_MI, out_MI, I=I, BLOCK=block, num_warps=4, enable_fp_fusion=FUSES
    )
    return out_MI


def swiglu_reference(gate_up_MI: Tensor) -> Tensor:
    """MLP of engine/model/layers.py between its two products."""
    gate, up = gate_up_MI.chunk(2, dim=-1)
    return F.silu(gate) * up


@triton.jit
def swiglu_kernel(gate_up_ptr, out_ptr, I: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK columns of one row."""
    m = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = i < I
    gate = tl.load(gate_up_ptr + m * 2 * I + i, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + m * 2 * I + I + i, mask=ok, other=0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + m * I + i, y.to(out_ptr.dtype.element_ty), mask=ok)
