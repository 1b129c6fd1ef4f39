"""Successive halving: which settings are tried on more rows, and which are chosen at the end?

There are two speeds: tokens per second here, smoothed over the settings (speeds.py), and tokens per
forward, which is counted, and is what another device or batch inherits.

After a rung a setting is dropped

    if it loses more than is asked for     the 95 % interval of its paired difference to the
                                           reference ends below
    else if others promise more            by what it promises it is not among the first of the
                                           others, in neither of the two speeds: a fifth of them
                                           after the first rung, then half

A setting promises its speed times the chance that its loss is within what is asked for, given its
rows so far. On few rows the chances of two settings hardly differ, unless one is plainly worse, so
speed decides; on many, quality does.

Those that are left are tried on all rows, the fastest first, until one is within the loss: a slower
one cannot be the answer then. So it is for each of the two speeds.

(Jamieson and Talwalkar, arXiv 1502.07943, have the halving; the paired interval and the promise are
ours.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

from pipeline.calibrate.measure import Measured
from pipeline.stats.paired import Z_95, Paired

PER_SECOND, PER_FORWARD = "smoothed_per_s", "tokens_per_forward"
SPEEDS = (PER_SECOND, PER_FORWARD)
KEPT = (1 / 5, 1 / 2)
"""After the first and the second rung: of those that do not lose too much, this share goes on, for
each of the two speeds."""
LEAST_KEPT = 2


@dataclass(frozen=True, slots=True)
class Dropped:
    measured: Measured
    why: str
    loses: bool
    """Whether it was its quality."""


def select(
    found: Sequence[Measured], reference: Measured, within: float, kept_share: float
) -> tuple[list[Measured], list[Dropped]]:
    """Those that go on, the most promising in tokens per second first, and those that do not. All
    are of one rung. `kept_share`: of KEPT."""
    good, dropped = [], []
    for one in found:
        low, high = one.against(reference).interval
        if high < -within:
            why = f"loses more than {within:g} (95 % interval {low:+.3f} to {high:+.3f})"
            dropped.append(Dropped(one, why, loses=True))
        else:
            good.append(one)
    num = max(LEAST_KEPT, ceil(kept_share * len(good)))
    ranked = {speed: by_promise(good, reference, within, speed) for speed in SPEEDS}
    first = {one.point.name for its in ranked.values() for one in its[:num]}
    kept = [one for one in ranked[PER_SECOND] if one.point.name in first]
    why = f"{num} promise more tokens/s, and {num} more tokens per forward"
    slow = [one for one in good if one.point.name not in first]
    return kept, dropped + [Dropped(one, why, loses=False) for one in slow]


def by_promise(
    found: Iterable[Measured], reference: Measured, within: float, speed: str
) -> list[Measured]:
    """The most promising in this speed first."""

    def place(one: Measured) -> tuple[float, str]:
        promise = getattr(one, speed) * chance(one.against(reference), within)
        return -promise, one.point.name

    return sorted(found, key=place)


def chance(found: Paired, within: float) -> float:
    """How likely the true difference is at least -`within`: by the normal curve of which the 95 %
    interval of the difference is the middle."""
    low, high = found.interval
    middle, sd = (low + high) / 2, (high - low) / 2 / Z_95
    if sd == 0:
        return float(middle >= -within)
    return 1 - NormalDist(middle, sd).cdf(-within)


def fastest_first(found: Iterable[Measured], speed: str) -> list[Measured]:
    return sorted(found, key=lambda one: (-getattr(one, speed), one.point.name))


def is_dominated(one: Measured, others: Iterable[Measured], speed: str) -> bool:
    """Whether another is at least as fast and as good, and better in one of the two."""
    mine = (getattr(one, speed), one.quality)
    places = [(getattr(other, speed), other.quality) for other in others]
    return any(its != mine and its[0] >= mine[0] and its[1] >= mine[1] for its in places)


def frontier(found: Sequence[Measured], speed: str) -> list[Measured]:
    """Those that no other dominates, the slowest first."""
    best = [one for one in found if not is_dominated(one, found, speed)]
    return sorted(best, key=lambda one: getattr(one, speed))


def choose(
    found: Sequence[Measured], reference: Measured, within: float, speed: str
) -> Measured | None:
    """The fastest whose difference to the reference is not below -`within`, of those that are
    faster than the reference; None if there is none."""
    good = [
        one
        for one in found
        if one.against(reference).difference >= -within - 1e-12
        and getattr(one, speed) > getattr(reference, speed)
    ]
    return next(iter(fastest_first(good, speed)), None)
