"""Where the tests of the kernels run: in the interpreter in float32, and, with `pytest -m gpu`,
on a GPU in all dtypes; and how near a kernel must come to its reference.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """A device and a dtype."""

    device: str
    dtype: torch.dtype
    tolerance: float
    """Of each element, as a share of itself and of the root mean square of all."""

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        return (torch.randn(shape) * scale).to(self.device, dtype or self.dtype)

    def nans(self, *shape: int) -> Tensor:
        return torch.full(shape, math.nan, dtype=self.dtype, device=self.device)

    def ints(self, values: object, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.as_tensor(values, dtype=dtype).to(self.device)

    def assert_near(self, got: Tensor, expected: Tensor) -> None:
        """Every element is near; NaN never is."""
        got, expected = got.double(), expected.double()
        assert got.shape == expected.shape
        size = expected.square().mean().sqrt()
        error = (got - expected).abs() / (expected.abs() + size + 1e-30)
        assert not error.isnan().any(), f"{int(error.isnan().sum())} elements are NaN"
        assert float(error.max()) <= self.tolerance, (
            f"the largest error is {float(error.max()):.1e}"
        )


INTERPRETER = Place("cpu", torch.float32, 2e-5)
BFLOAT16 = Place("cuda", torch.bfloat16, 4e-2)
PLACES = [
    pytest.param(INTERPRETER, id="interpreter"),
    *(
        pytest.param(place, id=str(place.dtype).removeprefix("torch."), marks=pytest.mark.gpu)
        for place in (
            BFLOAT16,
            Place("cuda", torch.float16, 5e-3),
            Place("cuda", torch.float32, 2e-5),
        )
    ),
]
everywhere = pytest.mark.parametrize("place", PLACES)
