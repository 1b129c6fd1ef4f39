"""The Triton kernels of attention over pages against the reference, with NaN wherever they must
not read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.kernels import attention
from engine.kernels.attention import AttentionTile, Tiles, paged_attention, plan_tiles
from engine.kernels.common import power_of_two
from engine.kernels.reference import PagedLayout, paged_attention_reference
from engine.kernels.tiles import Splits
from tests.kernels.places import Place, everywhere
from tests.kernels.test_attention import layout_of

ODD = ([1, 63, 65, 3], [1, 63, 65, 200])
HEADS = [
    pytest.param(4, 4, 12, id="head-12"),
    pytest.param(4, 2, 16, id="grouped"),
    pytest.param(7, 1, 64, id="group-7"),
]
TILES = {
    "whole": AttentionTile(),
    "splits": AttentionTile(rows=32, positions=32, splits=4, is_spread=True),
    "own splits": AttentionTile(positions=32, splits=4, split_steps=1, is_spread=True),
    "own splits in one program": AttentionTile(rows=32, positions=32, splits=4, split_steps=1),
    "tma": AttentionTile(num_stages=3, use_tma=True),
}


def on(place: Place, layout: PagedLayout) -> PagedLayout:
    moved = {
        name: getattr(layout, name).to(place.device)
        for name in ("query_starts", "first_slot_R", "context_lens_R")
    }
    return replace(layout, **moved)


def case(
    place: Place, queries: list[int], contexts: list[int], H: int, K: int, E: int, page_size: int
) -> tuple[Tensor, Tensor, Tensor, PagedLayout]:
    """Queries, K and V with NaN between the contexts, and the layout."""
    layout, num_pages = layout_of(queries, contexts, page_size)
    pages = place.nans(2, num_pages, page_size, K, E)
    for _, _, slot, context in layout.host_runs:
        pages.flatten(1, 2)[:, slot : slot + context] = place.normal(2, context, K, E)
    return place.normal(sum(queries), H, E), pages[0], pages[1], on(place, layout)


def tiles_of(place: Place, layout: PagedLayout, H: int, K: int, tile: AttentionTile) -> Tiles:
    """All runs in one list of tiles of this kind, and three tiles that are not there."""
    group = power_of_two(H // K)
    starts = layout.query_starts.tolist()
    tiles = [
        (run, first)
        for run, end in enumerate(starts[1:])
        for first in range(starts[run], end, tile.rows // group)
    ]
    run_A, first_A = zip(*tiles, *[(-1, 0)] * 3, strict=True)
    return Tiles(tile=tile, run_A=place.ints(run_A), first_A=place.ints(first_A))


@everywhere
@pytest.mark.parametrize(("H", "K", "E"), HEADS)
@pytest.mark.parametrize("tile", TILES.values(), ids=list(TILES))
def test_odd_lengths(place: Place, H: int, K: int, E: int, tile: AttentionTile) -> None:
    q, k, v, layout = case(place, *ODD, H, K, E, page_size=16)
    tiles = tiles_of(place, layout, H, K, tile)
    got = paged_attention(q, k, v, layout, [tiles], out_QHE=place.nans(*q.shape))
    place.assert_near(got, paged_attention_reference(q, k, v, layout))


@everywhere
def test_few_rows_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; in the interpreter a program adds up the splits of more rows."""
    monkeypatch.setattr(attention, "COMBINED_ROWS", 4)
    q, k, v, layout = case(place, [1, 7, 9], [40, 70, 3], 4, 2, 16, page_size=16)
    tiles = tiles_of(place, layout, 4, 2, TILES["own splits"])
    got = paged_attention(q, k, v, layout, [tiles], out_QHE=place.nans(*q.shape))
    place.assert_near(got, paged_attention_reference(q, k, v, layout))


@everywhere
@pytest.mark.parametrize("page_size", [1, 5, 32])
def test_page_boundaries(place: Place, page_size: int) -> None:
    """Contexts that end at, before and behind the end of a page, and of a step of 64 positions."""
    q, k, v, layout = case(place, [2, 2, 2, 1], [63, 64, 65, page_size], 4, 2, 16, page_size)
    for tile in (tile for tile in TILES.values() if not tile.use_tma):
        got = paged_attention(q, k, v, layout, [tiles_of(place, layout, 4, 2, tile)])
        place.assert_near(got, paged_attention_reference(q, k, v, layout))


@everywhere
@pytest.mark.parametrize("splits", Splits)
@pytest.mark.parametrize(("count", "H", "K"), [(1, 4, 4), (33, 4, 1)])
def test_planned_tiles(place: Place, splits: Splits, count: int, H: int, K: int) -> None:
    """The plan of one and of 33 sequences, of which one has a long span; padded, with tokens of no
    run at the end, whose output nothing writes."""
    queries, contexts = [5] * (count - 1) + [260], [9] * (count - 1) + [300]
    q, k, v, layout = case(place, queries, contexts, H, K, 16, page_size=16)
    starts = np.array(layout.query_starts.tolist())
    plans = plan_tiles(starts, np.array(contexts), H, K, splits)
    assert len(plans) == (1 if count == 1 else 2)
    tiles = [
        Tiles(
            tile=plan.tile,
            run_A=place.ints([*plan.run_A, -1, -1]),
            first_A=place.ints([*plan.first_A, 0, 0]),
        )
        for plan in plans
    ]
    padded = torch.cat((q, place.nans(3, H, 16)))
    got = paged_attention(padded, k, v, layout, tiles, out_QHE=place.nans(*padded.shape))
    place.assert_near(got[:-3], paged_attention_reference(q, k, v, layout))
    assert got[-3:].isnan().all()


@everywhere
@pytest.mark.parametrize("tile", TILES.values(), ids=list(TILES))
def test_scattered_pages(place: Place, tile: AttentionTile) -> None:
    """A page table in no order; the tile for contiguous pages follows it too."""
    k, v = place.nans(2, 9, 16, 2, 16)
    for page in (7, 2, 5, 0, 8):
        k[page], v[page] = place.normal(2, 16, 2, 16)
    layout = PagedLayout(
        query_starts=place.ints([0, 5]),
        first_slot_R=place.ints([0]),
        context_lens_R=place.ints([70]),
        longest_context=70,
        scattered_RT=place.ints([[7, 2, 5, 0, 8, 1]]),
        host_runs=None,
    )
    q = place.normal(5, 4, 16)
    got = paged_attention(q, k, v, layout, [tiles_of(place, layout, 4, 2, tile)])
    place.assert_near(got, paged_attention_reference(q, k, v, layout))


@everywhere
@pytest.mark.parametrize("tile", TILES.values(), ids=list(TILES))
def test_keys_that_are_not_finite_show_in_their_run_alone(
    place: Place, tile: AttentionTile
) -> None:
    q, k, v, layout = case(place, [3, 2], [70, 40], 4, 2, 16, page_size=16)
    k.flatten(0, 1)[int(layout.first_slot_R[0]) + 60] = torch.nan
    got = paged_attention(q, k, v, layout, [tiles_of(place, layout, 4, 2, tile)])
    assert got[:3].isnan().all()
    assert got[3:].isfinite().all()
