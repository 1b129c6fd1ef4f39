"""The linear whose bits do not depend on the number of rows."""

import pytest
import torch

from engine.kernels.linear import TILES, choose_tile, linear, linear_reference
from tests.kernels.places import Place, everywhere

SHAPES = [(48, 20), (144, 48), (40, 97), (12, 70)]


@everywhere
@pytest.mark.parametrize("M", [1, 63, 65])
@pytest.mark.parametrize(("K", "N"), SHAPES)
def test_linear(place: Place, M: int, K: int, N: int) -> None:
    x, w = place.normal(M, K), place.normal(N, K, scale=K**-0.5)
    bias = place.normal(N)
    place.assert_near(linear(x, w), linear_reference(x, w))
    place.assert_near(linear(x, w, bias), linear_reference(x, w, bias))
    wide = linear(x, w, out_dtype=torch.float32)
    assert wide.dtype == torch.float32
    place.assert_near(wide, linear_reference(x, w))


@everywhere
@pytest.mark.parametrize("name", TILES)
def test_every_tile(place: Place, name: str) -> None:
    """65 rows, of which the last tile has one."""
    if place.device == "cuda" and (name == "float32") != (place.dtype == torch.float32):
        pytest.skip("a tile for another dtype")
    for K, N in ((144, 48), (20, 300)):
        x, w = place.normal(65, K), place.normal(N, K, scale=K**-0.5)
        got = linear(x, w, tile=TILES[name])
        place.assert_near(got, linear_reference(x, w))


def test_choice_of_tiles() -> None:
    def choice(M: int, N: int) -> str:
        tile = choose_tile(M, N, torch.bfloat16)
        return next(name for name, each in TILES.items() if each is tile)

    got = [choice(*case) for case in ((32, 4096), (33, 4096), (65, 4096), (128, 12288))]
    assert got == ["x32", "x64", "m64", "m64w"]
    assert [choice(512, 6144), choice(1024, 2048), choice(8192, 4096)] == ["l128", "l128", "l256"]
    assert choose_tile(8192, 4096, torch.float32) is TILES["float32"]
