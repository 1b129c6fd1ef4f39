"""Seconds that are smoothed over the settings of a rung, against costs that are known."""

import math
import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from pipeline.calibrate.halving import KEPT, PER_FORWARD, PER_SECOND, select
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.speeds import Speeds, fitted
from pipeline.stats.totals import Totals
from tests.pipeline.calibrate.test_halving import measured

COSTS = np.array([0.008, 0.0004, 0.00006])
"""Seconds per iteration, forward and query token."""


def setting(name: float, forwards: int, per_forward: int, factor: float = 1.0) -> Measured:
    """A setting that makes 2,000 tokens in this many forwards of as many query tokens each, and
    takes `factor` times the seconds of COSTS."""
    iterations, tokens = forwards // 8, forwards * per_forward
    seconds = float(COSTS @ [iterations, forwards, tokens])
    work = Totals(
        num_iterations=iterations,
        num_forwards={"decode": forwards - 3, "refresh": 3},
        num_query_tokens={"decode": tokens - 300, "refresh": 300},
        num_generated_tokens=2000,
        engine_s=factor * seconds,
    )
    one = replace(measured(name, 0.0), work=work, tokens_per_forward=2000 / forwards)
    assert one.tokens_per_s == pytest.approx(2000 / seconds / factor)
    return one


def settings(noise: float = 0.0, seed: int = 0, factor: float = 1.0) -> list[Measured]:
    """30 settings; the first takes `factor` times the seconds."""
    luck = random.Random(seed)
    pairs = product((150, 200, 300, 450, 700, 1100), (30, 50, 90, 140, 180))
    found = []
    for number, (forwards, tokens) in enumerate(pairs):
        swing = math.exp(luck.gauss(0, noise)) * (factor if number == 0 else 1.0)
        found.append(setting((number + 1) / 100, forwards, tokens, swing))
    return found


def true_speed(one: Measured) -> float:
    forwards = sum(one.work.num_forwards.values())
    tokens = sum(one.work.num_query_tokens.values())
    return 2000 / float(COSTS @ [one.work.num_iterations, forwards, tokens])


def test_costs_are_found_again() -> None:
    counted = [[its, 10 * its + shift, 900 * its - 50 * shift] for its, shift in ((3, 1), (5, 9))]
    counted += [[7, 300, 1500], [20, 90, 40000]]
    seconds = [float(COSTS @ counts) for counts in counted]
    assert fitted(counted, seconds) == pytest.approx(COSTS)


def test_no_cost_is_negative() -> None:
    # More query tokens went with less time here: of the costs that are allowed, none is best.
    found = fitted([[1, 10, 100], [1, 10, 400], [1, 10, 900]], [1.0, 0.9, 0.8])
    assert (found >= 0).all()
    assert found[2] == 0
    assert float(found @ [1, 10, 100]) == pytest.approx(0.886, abs=0.01)


def test_counts_that_are_all_zero_cost_nothing() -> None:
    assert fitted([[0, 10, 0], [0, 20, 0]], [1.0, 2.0]) == pytest.approx([0, 0.1, 0])


def test_a_burst_does_not_drop_a_good_setting() -> None:
    """The fastest setting of a rung was hit by a burst, and took three times its time."""
    found = settings(noise=0.2, factor=3.0)
    reference = setting(1.0, 8000, 180)
    speeds = Speeds()
    speeds.add([reference, *found])
    best = found[0]
    assert best.tokens_per_s < sorted(one.tokens_per_s for one in found)[-10], "as the clock says"
    assert best.smoothed_per_s == max(one.smoothed_per_s for one in found)
    kept, _ = select(found, reference, 0.01, KEPT[0])
    assert best in kept
    # With its own time instead it is not among the fastest fifth.
    by_clock = [replace(one, smoothed_per_s=one.tokens_per_s) for one in found]
    by_clock = [replace(one, tokens_per_forward=1.0 + i) for i, one in enumerate(by_clock)]
    assert by_clock[0] not in select(by_clock, reference, 0.01, KEPT[0])[0]


def test_smoothed_speeds_swing_less() -> None:
    found = settings(noise=0.25)
    Speeds().add(found)
    clock = np.std([math.log(one.tokens_per_s / true_speed(one)) for one in found])
    smoothed = np.std([math.log(one.smoothed_per_s / true_speed(one)) for one in found])
    assert smoothed < clock / 2.5, "relative to each other, which is all that decides"


def test_what_comes_back_counts_and_one_burst_does_not() -> None:
    speeds = Speeds()
    for factor in (1.5, 1.4, 1.6):
        found = settings(factor=factor)
        speeds.add(found)
    slower = found[0].smoothed_per_s / true_speed(found[0])
    assert 1 / 1.5 < slower < 1 / 1.3, "its strategy costs more than counts tell"
    speeds = Speeds()
    for factor in (1.0, 1.0, 2.0):
        found = settings(factor=factor)
        speeds.add(found)
    assert found[0].smoothed_per_s == pytest.approx(true_speed(found[0]), rel=0.05)


def test_the_swing_is_told_from_rung_to_rung() -> None:
    speeds = Speeds()
    speeds.add(settings(noise=0.2, seed=1))
    assert speeds.swing is None, "a single rung tells nothing"
    for seed in range(2, 12):
        speeds.add(settings(noise=0.2, seed=seed))
    assert speeds.swing == pytest.approx(0.2, abs=0.03)


def test_a_setting_by_itself_is_told_by_the_last_fit() -> None:
    speeds = Speeds()
    speeds.add(settings())
    later = setting(0.5, 333, 77, factor=2.0)
    speeds.smooth(later)
    assert later.smoothed_per_s == pytest.approx(true_speed(later))


def test_few_settings_scale_the_costs() -> None:
    speeds = Speeds()
    speeds.add(settings())
    assert speeds.costs == pytest.approx(COSTS)
    few = [setting(0.6 + i / 100, 200 + 90 * i, 40 + 20 * i, factor=0.7) for i in range(5)]
    few[4] = setting(0.7, 900, 40, factor=2.0)
    speeds.add(few)
    assert speeds.costs == pytest.approx(0.7 * COSTS), "the median of the five, bursts or not"
    assert few[4].smoothed_per_s == pytest.approx(true_speed(few[4]) / 0.7)


def test_without_a_token_there_is_no_speed() -> None:
    nothing = replace(measured(0.5, 0.0), work=Totals())
    found = [*settings(), nothing]
    Speeds().add(found)
    assert getattr(nothing, PER_SECOND) == 0.0
    assert getattr(found[0], PER_FORWARD) > 0
