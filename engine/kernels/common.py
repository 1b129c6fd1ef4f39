"""What the kernels' callers share: sizes that are powers of two, and how float32 is multiplied.

Imports no triton.
"""

import torch


def power_of_two(number: int) -> int:
    """The least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def width_of(size: int, at_most: int) -> int:
    """The width of a tile over `size` columns: a power of two of at least 16, which is what a
    matrix product needs."""
    return min(at_most, max(16, power_of_two(size)))


NARROW_BYTES = 256
"""Wider heads than this need smaller steps in attention, and their softmax takes all registers."""


def head_bytes(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of a position's K or V of one head, as attention holds it."""
    return width_of(head_dim, 256) * dtype.itemsize


FUSES = True
"""Whether the compiler may make one operation of a product and a sum, in kernels whose bits do not
depend on the batch either way. Said at every launch, since Triton's default differs between
versions."""
PRECISION = "ieee"
"""How linears and experts multiply float32; it means nothing for narrower types."""


def suits_tma(tensor: torch.Tensor) -> bool:
    """Whether the tensor memory accelerator can load tiles of this contiguous matrix, whose rows
    must start at multiples of 16 bytes."""
    is_aligned = tensor.shape[-1] * tensor.element_size() % 16 == 0
    return is_aligned and tensor.data_ptr() % 16 == 0
