"""Which linears of a model give a row other bits when its neighbours change?

cuBLAS chooses an algorithm by the number of rows, and some algorithms add in another order. Which
ones differs between cards and library versions, so it is measured on the device when a model is
loaded. Where a row's place in the batch or the number of rows changes a bit, the kernel of
engine/kernels/linear.py takes over, whose bits depend on the row alone.

Shape letters: M rows, N output channels, K input channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SIZES = (
    *(1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 65, 80, 96, 100),
    *(127, 128, 129, 160, 192, 224, 255, 256, 257, 320, 384, 448, 512, 576, 640, 768, 896, 1000),
    *(1024, 1025, 1280, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
)
"""Numbers of rows that are tried: around every power of two, where the choice of an algorithm
changes, and some between."""


def bits_depend_on_rows(
    product: Callable[[Tensor], Tensor], num_inputs: int, most_rows: int, like: Tensor
) -> bool:
    """Whether `product`, [M, K] -> [M, N], gives any row other bits with another number of rows, up
    to `most_rows`, or at another place among them.

    The rows are random, in the dtype and on the device of `like`. The device is read once, at the
    end.
    """
    generator = torch.Generator(like.device).manual_seed(0)
    shape = (most_rows, num_inputs)
    rows_MK = torch.randn(shape, generator=generator, dtype=torch.float32, device=like.device)
    rows_MK = rows_MK.to(like.dtype)
    whole_MN = _bits(product(rows_MK))
    differs = torch.zeros((), dtype=torch.bool, device=like.device)
    for size in (size for size in SIZES if size < most_rows):
        for first in {0, most_rows - size}:
            # A copy, which begins at an aligned address as the rows of a forward do.
            part_MN = product(rows_MK[first : first + size].clone())
            differs |= (_bits(part_MN) != whole_MN[first : first + size]).any()
    return bool(differs)


def _bits(x: Tensor) -> Tensor:
    return x.view({2: torch.int16, 4: torch.int32}[x.element_size()])
