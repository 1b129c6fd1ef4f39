"""The tiles of the experts' products, and which one is chosen.

Imports no triton.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTile:
    """Tiles of both products: rows of one expert x columns x depth of a step."""

    rows: int
    up: tuple[int, int, int, int]
    """columns (of gate and of up), depth, stages, warps"""
    down: tuple[int, int, int, int]
    band: int = 1
    """Tiles of rows that go through the columns together, so that weights are read from L2."""
    use_tma: bool = False
    """Weights by TMA, where their rows start at multiples of 16 bytes."""
    tma_rows: bool = False
    """The middle rows by TMA too, and those of the tokens where they are sorted."""
    is_sorted: bool = False
    """Every token's row is copied to the rows of its pairs first."""


TILES = {
    "s16b": ExpertTile(rows=16, up=(64, 128, 3, 4), down=(128, 128, 3, 4)),
    "m64t": ExpertTile(rows=64, up=(128, 64, 3, 8), down=(128, 64, 4, 4), band=8, use_tma=True),
    "l128t": ExpertTile(rows=128, up=(128, 64, 3, 8), down=(256, 64, 3, 8), band=8, use_tma=True),
    "g128": ExpertTile(
        rows=128, up=(128, 64, 4, 8), down=(256, 64, 3, 8), band=8,
        use_tma=True, tma_rows=True, is_sorted=True,
    ),
    "float32": ExpertTile(rows=32, up=(64, 32, 3, 4), down=(64, 32, 3, 4), band=8),
}  # fmt: skip


def choose_tile(
    num_rows: int, num_chosen: int, num_experts: int, dtype: torch.dtype = torch.bfloat16
) -> ExpertTile:
    """The tile that is at most 3 % slower than the best on an H100. In float32 there is one.

    By the mean rows of an expert; chosen for 64 experts of width 1024 and 256 of 512, D = 2048, 32
    to 9216 rows.
    """
    if dtype == torch.float32:
        return TILES["float32"]
    mean = num_rows * num_chosen / num_experts
    return TILES[
        "s16b" if mean <= 8 else "m64t" if mean <= 64 else "l128t" if mean <= 160 else "g128"
    ]
