"""Which linears of a model give a row other bits when its neighbours change?

cuBLAS chooses an algorithm by the number of rows, and some algorithms add in another order. Which
ones differs between cards and library versions, so it is measured on the device when a model is
loaded. Where a row's place in the batch or the number of rows changes a bit, the kernel of
engine/kernels/linear.py takes over, whose bits depend on the row alone: up to the number of rows
from which on cuBLAS gives the same bits as that kernel, and everywhere if there is none. (On an
H100 cuBLAS splits the sum of three shapes at few rows only, and is faster above.)

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


ALWAYS = 2**62
"""More rows than any batch has."""

Linear = Callable[[Tensor], Tensor]
"""[M, K] -> [M, N]"""


def rows_for_own_kernel(
    product: Linear, own: Linear, num_inputs: int, most_rows: int, like: Tensor
) -> int:
    """Below how many rows `own` is to compute, so that no row's bits depend on the number of rows,
    up to `most_rows`, or on its place among them: 0, nowhere, where those of `product` never do;
    ALWAYS where they do and at no number of rows are those of `own`.

    The bits of `own` depend on nothing but the row. The rows that are tried are random, in the
    dtype and on the device of `like`. The device is read twice at most.
    """
    generator = torch.Generator(like.device).manual_seed(0)
    shape = (most_rows, num_inputs)
    rows_MK = torch.randn(shape, generator=generator, dtype=torch.float32, device=like.device)
    rows_MK = rows_MK.to(like.dtype)
    if not any(_differing(product, product(rows_MK), rows_MK)):
        return 0
    differs = _differing(product, own(rows_MK), rows_MK)
    alike = len(differs)
    while alike and not differs[alike - 1]:
        alike -= 1
    return [*_sizes(most_rows), ALWAYS][alike]


def _sizes(most_rows: int) -> list[int]:
    return [*(size for size in SIZES if size < most_rows), most_rows]


def _differing(product: Linear, whole_MN: Tensor, rows_MK: Tensor) -> list[bool]:
    """Of each number of rows, whether any bit of the product differs from those of the whole."""
    most_rows, whole_MN = rows_MK.shape[0], _bits(whole_MN)
    differs = []
    for size in _sizes(most_rows):
        its = torch.zeros((), dtype=torch.bool, device=rows_MK.device)
        for first in {0, most_rows - size}:
            # A copy, which begins at an aligned address as the rows of a forward do.
            part_MN = product(rows_MK[first : first + size].clone())
            its |= (_bits(part_MN) != whole_MN[first : first + size]).any()
        differs.append(its)
    found: list[bool] = torch.stack(differs).tolist()
    return found


def _bits(x: Tensor) -> Tensor:
    return x.view({2: torch.int16, 4: torch.int32}[x.element_size()])
