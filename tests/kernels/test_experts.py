"""Experts, placed without sorting, against one expert at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import engine.kernels.experts as experts_module
from engine.kernels.expert_tiles import TILES, ExpertTile, choose_tile
from engine.kernels.experts import ExpertWeights, experts_reference, moe, moe_partial
from engine.kernels.norm import add_norm_reference
from engine.kernels.route import RouterWeights, route
from tests.kernels.mixtures import experts_of, router_of
from tests.kernels.places import INTERPRETER, Place, everywhere


def choices(h: Tensor, router: RouterWeights) -> tuple[Tensor, Tensor]:
    """The router's own choices, so that near-ties hide nothing, and the counts empty again."""
    chosen, weights, _ = route(h, router)
    router.counts_X.zero_()
    return chosen, weights


def tiles_for(place: Place) -> list[ExpertTile]:
    """All that hold in shared memory in this dtype."""
    if place.device == "cuda" and place.dtype == torch.float32:
        return [TILES["float32"]]
    return list(TILES.values())


@everywhere
@pytest.mark.parametrize(("M", "is_sigmoid"), [(1, True), (1, False), (33, True), (65, False)])
def test_moe(place: Place, M: int, is_sigmoid: bool) -> None:
    """Sigmoid as LLaDA2, softmax as LLaDA-MoE. Few tokens leave experts empty; twice, because the
    counts must be empty again."""
    router, experts = router_of(place, is_sigmoid=is_sigmoid), experts_of(place)
    h, x, shared = place.normal(3, M, 48)
    norm = place.normal(48)
    expected = experts_reference(h, *choices(h, router), experts) + x.float()
    if is_sigmoid:
        expected = expected + shared.float()
    _, normed = add_norm_reference(expected, None, norm.float(), 1e-5)
    for _ in range(2):
        got = moe(h, x, router, experts, norm, 1e-5, shared if is_sigmoid else None)
        place.assert_near(got[0], expected)
        place.assert_near(got[1], normed)
    assert not router.counts_X.any()


@everywhere
@pytest.mark.parametrize(
    ("D", "I"), [(48, 20), (64, 32), (40, 24)], ids=["no-tma", "tma", "odd-tma"]
)
def test_every_tile(place: Place, D: int, I: int) -> None:  # noqa: E741
    """Widths that are multiples of no tile, and for which TMA can load rows and can not."""
    router, experts = router_of(place, 6, D, 5, is_sigmoid=False), experts_of(place, 6, D, I)
    h = place.normal(17, D)
    expected = experts_reference(h, *choices(h, router), experts)
    for tile in tiles_for(place):
        place.assert_near(moe_partial(h, router, experts, tile=tile), expected)


@everywhere
@pytest.mark.parametrize("is_sorted", [False, True])
def test_experts_of_two_ranks_add_up(place: Place, is_sorted: bool) -> None:
    """Each rank has some of the experts, one of them just one; rows from 20 on only pad."""
    router, experts = router_of(place), experts_of(place)
    h, shared = place.normal(2, 24, 48)
    chosen, weights = choices(h[:20], router)
    h[20:] = torch.nan
    if place.device == "cuda" and place.dtype == torch.float32:
        pytest.skip("float32 has one tile on a GPU, which does not sort")
    tile = TILES["g128" if is_sorted else "s16b"]
    parts, wholes = [], []
    for first, end in ((0, 1), (1, 16)):
        its = ExpertWeights(
            gate_up_XID=experts.gate_up_XID[first:end],
            down_XDI=experts.down_XDI[first:end],
            first_expert=first,
        )
        its_shared = shared if first == 0 else None
        part = moe_partial(h, router, its, its_shared, num_rows=place.ints([20]), tile=tile)
        parts.append(part.float())
        wholes.append(experts_reference(h[:20], chosen, weights, its))
        assert not router.counts_X.any()
    got = sum(parts)
    place.assert_near(got[:20], sum(wholes) + shared[:20].float())
    # Experts add nothing to rows that pad.
    assert torch.equal(got[20:], shared[20:].float())


@everywhere
@pytest.mark.parametrize("is_sigmoid", [True, False])
def test_rows_that_pad_a_graph_change_no_bit(place: Place, is_sigmoid: bool) -> None:
    """Of wide rows, so that a sum that is rounded once more shows."""
    router = router_of(place, D=256, is_sigmoid=is_sigmoid)
    experts, norm = experts_of(place, D=256), place.normal(256)
    h, x, shared = place.normal(3, 40, 256)
    expected = moe(h[:33], x[:33], router, experts, norm, 1e-5, shared[:33])
    for y in (h, x, shared):
        y[33:] = torch.nan
    got = moe(h, x, router, experts, norm, 1e-5, shared, num_rows=place.ints([33]))
    for part in range(2):
        assert torch.equal(got[part][:33], expected[part])


@everywhere
def test_a_token_that_is_not_finite_stays_alone(place: Place) -> None:
    router, experts = router_of(place), experts_of(place)
    h, x = place.normal(2, 5, 48)
    norm = place.normal(48)
    expected, _ = moe(h, x, router, experts, norm, 1e-5)
    h[2] = torch.nan
    total, normed = moe(h, x, router, experts, norm, 1e-5)
    others = [0, 1, 3, 4]
    place.assert_near(total[others], expected[others])
    assert normed[2].isnan().all()
    assert not router.counts_X.any()


@pytest.mark.parametrize("name", TILES)
def test_nothing_is_allocated_once_the_router_has_counted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of memory between router and sum would leave counts behind, and a forward that is
    tried again would place its rows by them."""
    allocated: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if "empty" in str(func):
                allocated.append(str(func))
            return func(*args, **(kwargs or {}))

    def routed(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        result = route(*args)
        watch.__enter__()
        return result

    class NotLaunched:
        """The interpreter allocates in every launch."""

        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *args, **kwargs: None

    router, experts, watch = router_of(INTERPRETER), experts_of(INTERPRETER), Watch()
    monkeypatch.setattr(experts_module, "route", routed)
    for kernel in ("place", "spread", "gate_up", "down", "combine"):
        monkeypatch.setattr(experts_module, f"{kernel}_kernel", NotLaunched())
    h, x = INTERPRETER.normal(2, 5, 48)
    try:
        moe(h, x, router, experts, INTERPRETER.normal(48), 1e-5, tile=TILES[name])
        assert not allocated
        torch.empty(1)
        assert allocated
    finally:
        watch.__exit__(None, None, None)


def test_the_tile_follows_from_the_mean_rows_of_an_expert() -> None:
    names = {id(tile): name for name, tile in TILES.items()}
    cases = [(64, 8, 64), (65, 8, 64), (512, 8, 64), (513, 8, 64), (1280, 8, 64), (9216, 8, 64)]
    got = [names[id(choose_tile(*case))] for case in cases]
    assert got == ["s16b", "m64t", "m64t", "l128t", "l128t", "g128"]
    assert choose_tile(9216, 8, 64, torch.float32) is TILES["float32"]
