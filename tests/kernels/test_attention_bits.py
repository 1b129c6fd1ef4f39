"""The check at load: the same bits however a context's splits are divided among programs."""

import logging
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from engine.kernels import attention_bits
from engine.kernels.attention import paged_attention
from engine.kernels.attention_bits import CONTEXTS, splits_with_same_bits
from engine.kernels.reference import PagedLayout
from engine.kernels.tiles import STEPS_OF_SPLIT, AttentionTile, Splits, Tiles, split_by_context
from tests.kernels.places import Place, everywhere
from tests.kernels.test_paged_attention import case, tiles_of

CPU = torch.device("cpu")
PUBLISHED = [(32, 32, 128), (16, 16, 128), (16, 4, 128), (28, 4, 128), (32, 8, 128), (8, 2, 64)]


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    splits_with_same_bits.cache_clear()
    yield
    splits_with_same_bits.cache_clear()


@pytest.mark.parametrize("heads", [(2, 1, 16), (7, 1, 12), (2, 2, 64)])
def test_the_bits_are_the_same(heads: tuple[int, int, int]) -> None:
    found = splits_with_same_bits(*heads, torch.float32, CPU)
    assert found is Splits.BY_CONTEXT


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("heads", PUBLISHED, ids=str)
def test_the_bits_are_the_same_on_a_gpu(dtype: torch.dtype, heads: tuple[int, int, int]) -> None:
    assert splits_with_same_bits(*heads, dtype, torch.device("cuda")) is Splits.BY_CONTEXT


def test_wide_heads_have_no_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_bits, "_attended", None)
    for head_dim, dtype in ((128, torch.float32), (256, torch.bfloat16), (80, torch.bfloat16)):
        assert splits_with_same_bits(4, 4, head_dim, dtype, CPU) is Splits.NONE


def test_one_other_bit_and_nothing_is_split(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = attention_bits.paged_attention

    def other_bits(
        q: Tensor, k: Tensor, v: Tensor, layout: PagedLayout, tiles: Sequence[Tiles]
    ) -> Tensor:
        out = right(q, k, v, layout, tiles)
        if tiles[0].tile.is_spread:
            out.view(torch.int32)[-1, -1, -1] ^= 1
        return out

    monkeypatch.setattr(attention_bits, "paged_attention", other_bits)
    caplog.set_level(logging.INFO)
    assert splits_with_same_bits(2, 1, 16, torch.float32, CPU) is Splits.NONE
    assert "attention that shares a context among programs has other bits" in caplog.text


def test_contexts_of_every_kind_are_tried() -> None:
    tile = AttentionTile()
    steps = [-(-context // tile.positions) for context in CONTEXTS]
    assert min(steps) < STEPS_OF_SPLIT
    assert max(steps) > 8 * STEPS_OF_SPLIT


@everywhere
@pytest.mark.parametrize("is_spread", [False, True])
def test_one_split_has_the_bits_of_none(place: Place, is_spread: bool) -> None:
    """So a context's bits do not depend on whether a longer one stands beside it."""
    q, k, v, layout = case(place, [3, 2, 1], [256, 70, 1], 4, 2, 16, page_size=16)
    results = [
        paged_attention(q, k, v, layout, [tiles_of(place, layout, 4, 2, tile)])
        for tile in (AttentionTile(), split_by_context(AttentionTile(), is_spread))
    ]
    without, its = (result.view(torch.uint8) for result in results)
    assert torch.equal(without, its)
