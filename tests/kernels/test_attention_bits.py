"""The check at load: the same bits however a context's splits are divided among programs."""

import logging
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from engine.kernels import attention_bits
from engine.kernels.attention_bits import CONTEXTS, splits_with_same_bits
from engine.kernels.reference import PagedLayout
from engine.kernels.tiles import MOST_SPLITS, STEPS_OF_SPLIT, AttentionTile, Splits, Tiles

CPU = torch.device("cpu")
PUBLISHED = [(32, 32, 128), (16, 16, 128), (16, 4, 128), (28, 4, 128), (32, 8, 128), (8, 2, 64)]


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    splits_with_same_bits.cache_clear()
    yield
    splits_with_same_bits.cache_clear()


@pytest.mark.parametrize("heads", [(2, 1, 16), (7, 1, 12)])
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


@pytest.mark.parametrize(
    "has_other_bits",
    [lambda tiles: tiles[0].tile.is_spread, lambda tiles: len(tiles) == 2],
    ids=["a program for each split", "without splits"],
)
def test_one_other_bit_and_nothing_is_split(
    has_other_bits: Callable[[Sequence[Tiles]], bool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = attention_bits.paged_attention

    def attend(
        q: Tensor, k: Tensor, v: Tensor, layout: PagedLayout, tiles: Sequence[Tiles]
    ) -> Tensor:
        out = right(q, k, v, layout, tiles)
        if has_other_bits(tiles):
            out.view(torch.int32)[0, 0, 0] ^= 1
        return out

    monkeypatch.setattr(attention_bits, "paged_attention", attend)
    caplog.set_level(logging.INFO)
    assert splits_with_same_bits(2, 1, 16, torch.float32, CPU) is Splits.NONE
    assert "attention that shares a context among programs has other bits" in caplog.text


def test_contexts_of_every_kind_are_tried() -> None:
    steps = [-(-context // AttentionTile().positions) for context in CONTEXTS]
    assert sum(count <= STEPS_OF_SPLIT for count in steps) == 2
    assert max(steps) > MOST_SPLITS * STEPS_OF_SPLIT
    assert sum(context % AttentionTile().positions > 0 for context in CONTEXTS) == len(steps) - 1
