"""The router's choices, weights and ranks, against the plain router on the same scores."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.kernels.route import RouterWeights, route, route_reference, split_in_three
from tests.kernels.mixtures import router_of
from tests.kernels.places import Place, everywhere

ROUTERS = [
    pytest.param(16, 3, True, id="sigmoid-groups"),
    pytest.param(8, 3, False, id="softmax"),
    pytest.param(6, 5, False, id="six-experts"),
    pytest.param(1, 1, False, id="one-expert"),
    pytest.param(256, 8, True, id="256-experts"),
]


def is_same_choice(chosen: Tensor, expected: Tensor) -> Tensor:
    """Per token; ties may be ordered otherwise."""
    return (chosen.long().sort(1).values == expected.sort(1).values).all(1)


def assert_ranks(router: RouterWeights, chosen: Tensor, rank: Tensor) -> None:
    """The ranks of each expert's pairs are 0 .. count - 1, and the counts are those."""
    pairs = chosen >= 0
    counts = torch.bincount(chosen[pairs].long().cpu(), minlength=router.num_experts)
    assert counts.tolist() == router.counts_X.tolist()
    for expert, count in enumerate(counts.tolist()):
        assert sorted(rank[chosen == expert].tolist()) == list(range(count))


@everywhere
@pytest.mark.parametrize(("X", "C", "is_sigmoid"), ROUTERS)
@pytest.mark.parametrize("M", [1, 33])
def test_route(place: Place, X: int, C: int, is_sigmoid: bool, M: int) -> None:
    router = router_of(place, X, 48, C, is_sigmoid=is_sigmoid)
    h = place.normal(M, 48)
    chosen, weights, rank = route(h, router)
    expected, expected_weights = route_reference(h, router)
    # Scores within rounding of each other may change places.
    same = is_same_choice(chosen, expected)
    assert same.float().mean() >= (1 if place.dtype == torch.float32 else 0.9)
    order, expected_order = chosen.long().argsort(1), expected.argsort(1)
    got = weights.gather(1, order)[same]
    torch.testing.assert_close(
        got, expected_weights.gather(1, expected_order)[same], rtol=1e-4, atol=1e-5
    )
    assert_ranks(router, chosen, rank)


@everywhere
def test_rows_that_only_pad_choose_nothing(place: Place) -> None:
    router = router_of(place)
    h = place.normal(9, 48)
    h[5:] = torch.nan
    chosen, weights, rank = route(h, router, place.ints([5]))
    expected, _ = route_reference(h[:5], router)
    assert is_same_choice(chosen[:5], expected).all()
    assert (chosen[5:] == -1).all()
    assert (weights[5:] == 0).all()
    assert_ranks(router, chosen, rank)


@everywhere
@pytest.mark.parametrize("is_sigmoid", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite(place: Place, is_sigmoid: bool, value: float) -> None:
    """It chooses experts that there are, with weights that are NaN; the other rows notice
    nothing."""
    router = router_of(place, 6 if not is_sigmoid else 16, is_sigmoid=is_sigmoid)
    h = place.normal(3, 48)
    expected, _ = route_reference(h, router)
    h[1] = value
    chosen, weights, rank = route(h, router)
    assert ((chosen >= 0) & (chosen < router.num_experts)).all()
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()
    assert is_same_choice(chosen, expected)[[0, 2]].all()
    assert_ranks(router, chosen, rank)


def test_three_parts_are_the_matrix() -> None:
    weight = torch.randn(5, 48)
    parts = split_in_three(weight).float().unflatten(0, (3, 5))
    torch.testing.assert_close(parts.sum(0), weight, rtol=2**-22, atol=0)
    assert not torch.equal(parts[0], weight)


@pytest.mark.gpu
def test_three_parts_choose_as_float32_does() -> None:
    place = Place("cuda", torch.bfloat16, 1e-5)
    router = router_of(place, 64, 2048, 8, is_sigmoid=False)
    h = place.normal(100, 2048)
    for own in (False, True):
        router.counts_X.zero_()
        chosen, weights, _ = route(h, replace(router, own_below=2**62 if own else 0))
        expected, expected_weights = route_reference(h, router)
        same = is_same_choice(chosen, expected)
        assert same.float().mean() > 0.99
        place.assert_near(
            weights.sort(1).values[same], expected_weights.sort(1).values[same].float()
        )
