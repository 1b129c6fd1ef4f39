"""Kernels that work row by row: residual and RMS norm, SwiGLU."""

import pytest
import torch

from engine.kernels.norm import add_norm, add_norm_reference
from engine.kernels.swiglu import swiglu, swiglu_reference
from tests.kernels.places import Place, everywhere


@everywhere
@pytest.mark.parametrize(("num_rows", "size"), [(1, 48), (33, 40), (5, 2048), (2, 4100)])
@pytest.mark.parametrize("has_delta", [False, True], ids=["alone", "sum"])
def test_add_norm(place: Place, num_rows: int, size: int, has_delta: bool) -> None:
    x, weight = place.normal(num_rows, size), place.normal(size)
    delta = place.normal(num_rows, size) if has_delta else None
    got, expected = (f(x, delta, weight, 1e-5) for f in (add_norm, add_norm_reference))
    for mine, its in zip(got, expected, strict=True):
        place.assert_near(mine, its)


@everywhere
def test_a_row_that_is_not_finite_stays_alone(place: Place) -> None:
    x, weight = place.normal(3, 48), place.normal(48)
    x[1, 7] = torch.nan
    total, normed = add_norm(x, x, weight, 1e-5)
    for out in (total, normed):
        assert out[[0, 2]].isfinite().all()
        assert out[1].isnan().any()


@everywhere
@pytest.mark.parametrize(("num_rows", "size"), [(1, 20), (33, 80), (3, 2500)])
def test_swiglu(place: Place, num_rows: int, size: int) -> None:
    gate_up = place.normal(num_rows, 2 * size, scale=3)
    place.assert_near(swiglu(gate_up), swiglu_reference(gate_up.float()))
