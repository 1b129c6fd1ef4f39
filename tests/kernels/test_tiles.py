"""The plan of attention's tiles, in arrays, against a plain loop over the runs."""

import numpy as np
import pytest

from engine.kernels.common import power_of_two
from engine.kernels.tiles import HostTiles, plan_tiles

HEADS = [(16, 16), (16, 4), (28, 4), (7, 1), (64, 1)]


def starts_of(spans: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(spans)))


def looped(starts: np.ndarray, plan: HostTiles, group: int) -> list[tuple[int, int]]:
    """(run, first query token) of every tile of the runs that the plan has tiles of."""
    step = plan.tile.rows // group
    return [
        (run, first)
        for run in sorted(set(plan.run_A.tolist()))
        for first in range(starts[run], starts[run + 1], step)
    ]


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
@pytest.mark.parametrize("batch_invariant", [True, False])
def test_plan_equals_a_loop(num_heads: int, num_kv_heads: int, batch_invariant: bool) -> None:
    draw = np.random.default_rng(num_heads)
    group = power_of_two(num_heads // num_kv_heads)
    for _ in range(50):
        count = draw.integers(1, 34)
        spans = [int(draw.choice([0, 1, 8, 32, 63, 64, 65, 255, 256, 700])) for _ in range(count)]
        starts = starts_of(spans)
        plans = plan_tiles(starts, num_heads, num_kv_heads, batch_invariant)
        for plan in plans:
            got = list(zip(plan.run_A.tolist(), plan.first_A.tolist(), strict=True))
            assert got == looped(starts, plan, group)
            assert plan.run_A.dtype == plan.first_A.dtype == np.int32
        covered = sorted(run for plan in plans for run in set(plan.run_A.tolist()))
        assert covered == [run for run, span in enumerate(spans) if span]
        long = [run for plan in plans if plan.tile.use_tma for run in plan.run_A]
        assert set(long) == {run for run, span in enumerate(spans) if span * group >= 256}


def test_a_runs_tile_does_not_depend_on_its_neighbours() -> None:
    others = [1, 32, 300, 64, 17, 1024]
    for span in (1, 32, 64, 255, 256, 900):
        (alone,) = plan_tiles(starts_of([span]), 16, 4, batch_invariant=True)
        for count in range(len(others)):
            plans = plan_tiles(starts_of([*others[:count], span]), 16, 4, batch_invariant=True)
            (its,) = [plan for plan in plans if count in plan.run_A]
            assert its.tile == alone.tile
            assert its.tile.splits == 1


def test_splits_are_for_few_programs() -> None:
    def splits(num_runs: int, span: int, heads: tuple[int, int]) -> int:
        (plan,) = plan_tiles(starts_of([span] * num_runs), *heads, batch_invariant=False)
        return plan.tile.splits

    assert [splits(count, 64, (16, 16)) for count in (1, 2, 4, 8, 32)] == [8, 4, 2, 1, 1]
    assert [splits(count, 32, (16, 4)) for count in (1, 8, 32)] == [8, 4, 1]
