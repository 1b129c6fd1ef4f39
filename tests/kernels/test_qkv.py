"""QK norm, rotary positions and the write of K and V, in one kernel."""

import pytest
import torch

from engine.kernels.qkv import norm_rotate_write, norm_rotate_write_reference
from tests.kernels.places import Place, everywhere

SHAPES = [
    pytest.param(4, 4, 12, 6, False, id="head-12"),
    pytest.param(4, 2, 16, 4, True, id="half-rotary"),
    pytest.param(4, 2, 32, 4, True, id="quarter-rotary"),
    pytest.param(7, 1, 64, 32, False, id="group-7"),
    pytest.param(28, 4, 128, 64, True, id="28-heads"),
    pytest.param(6, 3, 20, 6, True, id="nothing-a-power-of-two"),
]


@everywhere
@pytest.mark.parametrize(("H", "K", "E", "R", "has_norm"), SHAPES)
@pytest.mark.parametrize("slots_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_norm_rotate_write(
    place: Place, H: int, K: int, E: int, R: int, has_norm: bool, slots_dtype: torch.dtype
) -> None:
    qkv = place.normal(7, (H + 2 * K) * E)
    norms = [place.normal(E) if has_norm else None for _ in range(2)]
    angles = place.normal(7, R, dtype=torch.float32)
    slots = place.ints(torch.randperm(12)[:7], slots_dtype)
    rest = (*norms, angles.cos(), angles.sin(), slots)
    # Whatever is not written stays NaN.
    mine, its = ([place.nans(3, 4, K, E) for _ in range(2)] for _ in range(2))
    got = norm_rotate_write(qkv, *rest, *mine, 1e-6)
    place.assert_near(got, norm_rotate_write_reference(qkv, *rest, *its, 1e-6))
    for pages, expected in zip(mine, its, strict=True):
        assert torch.equal(pages.isnan(), expected.isnan())
        place.assert_near(pages.nan_to_num(), expected.nan_to_num())
