"""The plan of attention's tiles, in arrays, against a plain loop over the runs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from engine.kernels.common import power_of_two
from engine.kernels.tiles import AttentionTile, HostTiles, Splits, plan_tiles

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
@pytest.mark.parametrize("splits", Splits)
def test_plan_equals_a_loop(num_heads: int, num_kv_heads: int, splits: Splits) -> None:
    draw = np.random.default_rng(num_heads)
    group = power_of_two(num_heads // num_kv_heads)
    for _ in range(50):
        count = draw.integers(1, 34)
        spans = [int(draw.choice([0, 1, 8, 32, 63, 64, 65, 255, 256, 700])) for _ in range(count)]
        starts = starts_of(spans)
        contexts = draw.integers(1, 2000, count)
        plans = plan_tiles(starts, contexts, num_heads, num_kv_heads, splits)
        for plan in plans:
            got = list(zip(plan.run_A.tolist(), plan.first_A.tolist(), strict=True))
            assert got == looped(starts, plan, group)
            assert plan.run_A.dtype == plan.first_A.dtype == np.int32
        covered = sorted(run for plan in plans for run in set(plan.run_A.tolist()))
        assert covered == [run for run, span in enumerate(spans) if span]
        long = [run for plan in plans if plan.tile.use_tma for run in plan.run_A]
        assert set(long) == {run for run, span in enumerate(spans) if span * group >= 256}


@pytest.mark.parametrize("splits", [Splits.NONE, Splits.BY_CONTEXT])
def test_a_runs_bits_do_not_depend_on_its_neighbours(splits: Splits) -> None:
    """Its tile is the same, but for who takes the splits."""
    spans, contexts = [1, 32, 300, 64, 17, 1024] * 4, [40, 256, 300, 999, 30, 1024] * 4
    who = set()
    for span, context in product((1, 32, 64, 255, 256, 900), (900, 1024)):
        alone = tile_of(0, [span], [context], splits)
        for i in range(len(spans)):
            its = tile_of(i, [*spans[:i], span], [*contexts[:i], context], splits)
            assert replace(its, is_spread=alone.is_spread) == alone
            assert (its.splits == 1) == (splits is Splits.NONE or its.use_tma)
            who.add(its.is_spread)
    assert who == ({False, True} if splits is Splits.BY_CONTEXT else {False})


def tile_of(run: int, spans: list[int], contexts: list[int], splits: Splits) -> AttentionTile:
    plans = plan_tiles(starts_of(spans), np.array(contexts), 16, 4, splits)
    (its,) = [plan for plan in plans if run in plan.run_A]
    return its.tile


def test_contexts_of_one_split_are_not_split() -> None:
    """The positions of a step are the same, so the bits are those of one split."""
    by, short, long = Splits.BY_CONTEXT, [256, 40, 1000], [257, 40, 1000]
    plain = tile_of(0, [32, 32, 300], short, by)
    assert plain == AttentionTile()
    split = tile_of(0, [32, 32, 300], long, by)
    assert split.splits > 1
    assert split.positions == plain.positions
    assert split.split_steps * split.positions == 256


def num_programs(rule: Splits, num_runs: int, span: int, heads: tuple[int, int]) -> int:
    """Among how many a context is spread at most."""
    contexts = np.full(num_runs, 1024)
    (plan,) = plan_tiles(starts_of([span] * num_runs), contexts, *heads, rule)
    return plan.tile.splits if plan.tile.is_spread else 1


@pytest.mark.parametrize(
    ("splits", "span", "heads", "counts", "expected"),
    [
        (Splits.BY_PROGRAMS, 64, (16, 16), (1, 2, 4, 8, 32), [8, 4, 2, 1, 1]),
        (Splits.BY_PROGRAMS, 32, (16, 4), (1, 8, 32), [8, 4, 1]),
        (Splits.BY_CONTEXT, 64, (16, 16), (1, 2, 4, 8, 32), [8, 8, 8, 1, 1]),
        (Splits.BY_CONTEXT, 32, (16, 4), (1, 8, 32), [8, 8, 1]),
        (Splits.BY_CONTEXT, 32, (32, 32), (1, 2, 4, 32), [8, 8, 1, 1]),
        (Splits.NONE, 64, (16, 16), (1, 32), [1, 1]),
    ],
)
def test_splits_are_spread_over_few_programs(
    splits: Splits, span: int, heads: tuple[int, int], counts: tuple[int, ...], expected: list[int]
) -> None:
    assert [num_programs(splits, count, span, heads) for count in counts] == expected
