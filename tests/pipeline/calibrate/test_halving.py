"""Which settings go on, and which is chosen: figures made up so that the answer is plain."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding.threshold import Threshold
from pipeline.calibrate.grid import Point
from pipeline.calibrate.halving import choose, frontier, select
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.rungs import Rung, part_rows, rungs_of
from pipeline.run_folder.share import Share

NUM = 64


def measured(name: float, speed: float, wrong: int = 0, first_wrong: int = 0) -> Measured:
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
        tokens_per_s=speed,
        tokens_per_forward=speed / 10,
        query_tokens_per_token=1.0,
        engine_s=1.0,
    )


REFERENCE = measured(1.0, 1.0, wrong=2)


def names(found: list[Measured]) -> list[float]:
    return [dict(one.point.set_fields)["threshold"] for one in found]


def test_what_loses_too_much_is_dropped_however_fast() -> None:
    fast_and_wrong = measured(0.1, 1000.0, wrong=40)
    fast_and_right = measured(0.2, 500.0, wrong=2)
    kept, dropped = select([fast_and_wrong, fast_and_right], REFERENCE, 0.01)
    assert names(kept) == [0.2]
    ((measured_, why, loses),) = [(its.measured, its.why, its.loses) for its in dropped]
    assert (measured_, loses) == (fast_and_wrong, True)
    assert "loses more than 0.01" in why


def test_one_prompt_of_64_is_no_proof() -> None:
    kept, _ = select([measured(0.1, 9.0, wrong=3), measured(0.2, 8.0, wrong=2)], REFERENCE, 0.01)
    assert names(kept) == [0.1, 0.2], "one more mistake, but faster; both may be within 0.01"


def test_the_fastest_quarter_and_the_undominated_go_on() -> None:
    same = [measured((10 + i) / 100, 100.0 - i, wrong=2) for i in range(8)]
    better = measured(0.9, 20.0, wrong=1)
    kept, dropped = select([better, *same], REFERENCE, 0.01)
    assert names(kept) == [0.1, 0.11, 0.12, 0.9], "a quarter of nine, and the best quality"
    assert {its.why for its in dropped} == {"is dominated"}
    assert not any(its.loses for its in dropped)


def test_order_does_not_matter() -> None:
    found = [measured((i + 1) / 50, 10.0 + i % 7, wrong=i % 5) for i in range(40)]
    kept, _ = select(found, REFERENCE, 0.01)
    mixed = list(found)
    random.Random(0).shuffle(mixed)
    again, _ = select(mixed, REFERENCE, 0.01)
    assert {id(one) for one in kept} == {id(one) for one in again}


def test_the_choice_is_the_fastest_within_the_loss() -> None:
    found = [measured(0.1, 90.0, wrong=4), measured(0.2, 80.0, wrong=3), measured(0.3, 70.0, 2)]
    assert choose(found, REFERENCE, 0.01) is found[2], "1 of 64 more is a loss of 0.0156"
    assert choose(found, REFERENCE, 1 / 64) is found[1]
    assert choose(found, REFERENCE, 0.05) is found[0]
    assert choose(found[:2], REFERENCE, 0.0) is None
    slower = replace(found[2], tokens_per_s=0.5)
    assert choose([slower], REFERENCE, 0.01) is None, "the reference itself is better"


def test_differences_are_paired() -> None:
    other = measured(0.1, 90.0, wrong=2, first_wrong=30)
    found = other.against(REFERENCE)
    assert found.difference == 0
    assert (found.num_better, found.num_worse) == (2, 2)


def test_the_frontier() -> None:
    found = [measured(0.1, 90.0, 4), measured(0.2, 80.0, 4), measured(0.3, 70.0, 2), REFERENCE]
    assert names(frontier(found)) == [0.3, 0.1]


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (256, [16, 64, 256]),
        (128, [8, 32, 128]),
        (64, [16, 64]),
        (20, [20]),
        (1, [1]),
        (100, [28, 100]),
    ],
)
def test_rungs(rows: int, sizes: list[int]) -> None:
    rungs = rungs_of(rows)
    assert [rung.num_rows for rung in rungs] == sizes
    assert [rung.num_rows for rung in rungs_of(rows, is_full=True)] == [rows]
    assert rungs[-1].share is None


def test_each_rung_has_the_parts_of_the_one_before() -> None:
    rungs, rows = rungs_of(250), part_rows(250)
    parts = range(-(-250 // rows))
    for before, after in pairwise(rungs):
        assert {i for i in parts if before.has(i)} < {i for i in parts if after.has(i)}
    for rung in rungs:
        own = [i for i in parts if rung.has(i)]
        share = Share.of(rung.share)
        assert own == [i for i in parts if share is None or share.has(i)]
        assert sum(min(rows, 250 - i * rows) for i in own) <= rung.num_rows
