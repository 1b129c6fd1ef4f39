"""Which settings go on, and which is chosen: figures made up so that the answer is plain."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding.threshold import Threshold
from pipeline.calibrate.grid import Point
from pipeline.calibrate.halving import (
    KEPT,
    PER_FORWARD,
    PER_SECOND,
    chance,
    choose,
    frontier,
    select,
)
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.rungs import Rung, part_rows, rungs_of
from pipeline.run_folder.share import Share
from pipeline.stats.paired import paired
from pipeline.stats.totals import Totals

NUM = 64


def measured(
    name: float,
    speed: float,
    wrong: int = 0,
    first_wrong: int = 0,
    per_forward: float | None = None,
) -> Measured:
    """A setting that is wrong in `wrong` of 64 prompts, from number `first_wrong` on."""
    bad = range(first_wrong, first_wrong + wrong)
    point = Point(
        cache_name="dual",
        decoding_name="threshold",
        cache=CACHE_POLICIES["dual"](),
        decoding=Threshold(threshold=name),
        set_fields=(("threshold", name),),
    )
    return Measured(
        point=point,
        rung=Rung(1, NUM),
        num_rows=NUM,
        num_failed=0,
        values={str(i): float(i not in bad) for i in range(NUM)},
        work=Totals(),
        smoothed_per_s=speed,
        tokens_per_forward=speed / 10 if per_forward is None else per_forward,
        query_tokens_per_token=1.0,
        engine_s=1.0,
    )


REFERENCE = measured(1.0, 1.0, wrong=2)


def names(found: list[Measured]) -> list[float]:
    return [dict(one.point.set_fields)["threshold"] for one in found]


def test_what_loses_too_much_is_dropped_however_fast() -> None:
    fast_and_wrong = measured(0.1, 1000.0, wrong=40)
    fast_and_right = measured(0.2, 500.0, wrong=2)
    kept, dropped = select([fast_and_wrong, fast_and_right], REFERENCE, 0.01, 1 / 4)
    assert names(kept) == [0.2]
    ((measured_, why, loses),) = [(its.measured, its.why, its.loses) for its in dropped]
    assert (measured_, loses) == (fast_and_wrong, True)
    assert "loses more than 0.01" in why


def test_one_prompt_of_64_is_no_proof() -> None:
    kept, _ = select(
        [measured(0.1, 9.0, wrong=3), measured(0.2, 8.0, wrong=2)], REFERENCE, 0.01, KEPT[0]
    )
    assert sorted(names(kept)) == [0.1, 0.2], "one mistake more; both may be within 0.01"


def test_a_quarter_of_each_speed_goes_on() -> None:
    fast = [measured((10 + i) / 100, 100.0 - i, 2, per_forward=1.0 + i / 10) for i in range(8)]
    found = [*fast, measured(0.9, 20.0, wrong=2, per_forward=9.0)]
    kept, dropped = select(found, REFERENCE, 0.01, 1 / 4)
    assert names(kept) == [0.1, 0.11, 0.12, 0.16, 0.17, 0.9], "three of nine by each"
    assert {its.why for its in dropped} == {
        "3 promise more tokens/s, and 3 more tokens per forward"
    }
    assert not any(its.loses for its in dropped)


def test_speed_counts_as_far_as_the_loss_may_be_within() -> None:
    doubtful = [measured((10 + i) / 100, 110.0, wrong=5) for i in range(4)]
    sure = [measured((20 + i) / 100, 100.0, wrong=2) for i in range(4)]
    kept, _ = select([*doubtful, *sure], REFERENCE, 0.01, 1 / 4)
    assert names(kept) == [0.2, 0.21], "a tenth faster, but 3 prompts of 64 worse"
    far = [replace(one, smoothed_per_s=3000.0, tokens_per_forward=300.0) for one in doubtful]
    kept, _ = select([*far, *sure], REFERENCE, 0.01, 1 / 4)
    assert names(kept) == [0.1, 0.11], "30 times as fast, and not surely too bad"


def test_the_chance_to_be_within_the_loss() -> None:
    same = paired([1.0] * 64, [1.0] * 64)
    assert chance(same, 0.0) == pytest.approx(0.5)
    assert chance(same, 0.01) > 0.7, "at 64 prompts an error of 0.015 remains"
    worse = paired([1.0] * 64, [0.0] + [1.0] * 63)
    better = paired([0.0] + [1.0] * 63, [1.0] * 64)
    assert chance(worse, 0.0) + chance(better, 0.0) == pytest.approx(1.0)
    # At the end of the 95 % interval the chance is 2.5 %, which is where a setting is dropped.
    bad = paired([1.0] * 64, [0.0] * 10 + [1.0] * 54)
    assert chance(bad, -bad.interval[1]) == pytest.approx(0.025, abs=1e-4)
    # Agreements have other values than 0 and 1, and may all be the same.
    assert chance(paired([1.0, 1.0], [0.75, 0.75]), 0.1) == 0.0
    assert chance(paired([1.0, 1.0], [0.75, 0.75]), 0.25) == 1.0


def test_order_does_not_matter() -> None:
    found = [measured((i + 1) / 50, 10.0 + i % 7, wrong=i % 5) for i in range(40)]
    kept, _ = select(found, REFERENCE, 0.01, 1 / 4)
    mixed = list(found)
    random.Random(0).shuffle(mixed)
    again, _ = select(mixed, REFERENCE, 0.01, 1 / 4)
    assert {id(one) for one in kept} == {id(one) for one in again}


def test_the_choice_is_the_fastest_within_the_loss() -> None:
    found = [measured(0.1, 90.0, wrong=4), measured(0.2, 80.0, wrong=3), measured(0.3, 70.0, 2)]
    assert choose(found, REFERENCE, 0.01, PER_SECOND) is found[2], "1 of 64 is a loss of 0.0156"
    assert choose(found, REFERENCE, 1 / 64, PER_SECOND) is found[1]
    assert choose(found, REFERENCE, 0.05, PER_SECOND) is found[0]
    assert choose(found[:2], REFERENCE, 0.0, PER_SECOND) is None
    slower = replace(found[2], smoothed_per_s=0.5)
    assert choose([slower], REFERENCE, 0.01, PER_SECOND) is None, "the reference itself is better"


def test_each_speed_has_its_own_choice() -> None:
    found = [measured(0.1, 90.0, 2, per_forward=5.0), measured(0.2, 80.0, 2, per_forward=8.0)]
    assert choose(found, REFERENCE, 0.01, PER_SECOND) is found[0]
    assert choose(found, REFERENCE, 0.01, PER_FORWARD) is found[1]


def test_differences_are_paired() -> None:
    other = measured(0.1, 90.0, wrong=2, first_wrong=30)
    found = other.against(REFERENCE)
    assert found.difference == 0
    assert (found.num_better, found.num_worse) == (2, 2)


def test_the_frontier() -> None:
    found = [measured(0.1, 90.0, 4), measured(0.2, 80.0, 4), measured(0.3, 70.0, 2), REFERENCE]
    assert names(frontier(found, PER_SECOND)) == [0.3, 0.1]
    assert names(frontier(found, PER_FORWARD)) == [0.3, 0.1]


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (1024, [32, 128, 1024]),
        (300, [10, 40, 300]),
        (256, [8, 32, 256]),
        (128, [8, 32, 128]),
        (100, [8, 32, 100]),
        (64, [8, 32, 64]),
        (32, [8, 32]),
        (20, [8, 20]),
        (16, [8, 16]),
        (8, [8]),
        (1, [1]),
    ],
)
def test_rungs(rows: int, sizes: list[int]) -> None:
    rungs = rungs_of(rows)
    assert [rung.num_rows for rung in rungs] == sizes
    assert [rung.num_rows for rung in rungs_of(rows, is_full=True)] == [rows]
    assert len(rungs) <= len(KEPT) + 1
    assert rungs[-1].share is None


@pytest.mark.parametrize("num", [30, 100, 250, 1000])
def test_each_rung_has_the_parts_of_the_one_before(num: int) -> None:
    rungs, rows = rungs_of(num), part_rows(num)
    parts = range(-(-num // rows))
    for before, after in pairwise(rungs):
        assert {i for i in parts if before.has(i)} < {i for i in parts if after.has(i)}
    for rung in rungs:
        own = [i for i in parts if rung.has(i)]
        share = Share.of(rung.share)
        assert own == [i for i in parts if share is None or share.has(i)]
        assert sum(min(rows, num - i * rows) for i in own) <= rung.num_rows
