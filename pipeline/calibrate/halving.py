"""Successive halving: which settings are tried on more rows, and which is chosen at the end?

After a rung a setting is dropped

    if it loses more than is asked for     the 95 % interval of its paired difference to the
                                           reference ends below
    else if it is dominated                it is not among the fastest quarter of the others, and
                                           another is at least as fast and as good

The best of every speed stays, and so do the fastest, whose quality few rows cannot tell apart.
(Jamieson and Talwalkar, arXiv 1502.07943, have the halving; the paired interval is ours.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from pipeline.calibrate.measure import Measured

KEPT = 1 / 4
"""Of those that do not lose too much, at least this share goes on."""


@dataclass(frozen=True, slots=True)
class Dropped:
    measured: Measured
    why: str
    loses: bool
    """Whether it was its quality."""


def select(
    found: Sequence[Measured], reference: Measured, within: float
) -> tuple[list[Measured], list[Dropped]]:
    """Those that go on, the fastest first, and those that do not. All are of one rung."""
    good, dropped = [], []
    for one in found:
        low, high = one.against(reference).interval
        if high < -within:
            why = f"loses more than {within:g} (95 % interval {low:+.3f} to {high:+.3f})"
            dropped.append(Dropped(one, why, loses=True))
        else:
            good.append(one)
    good.sort(key=lambda one: (-one.tokens_per_s, one.point.name))
    kept = [
        one
        for place, one in enumerate(good)
        if place < ceil(KEPT * len(good)) or not is_dominated(one, [*good, reference])
    ]
    slow = [one for one in good if one not in kept]
    return kept, dropped + [Dropped(one, "is dominated", loses=False) for one in slow]


def is_dominated(one: Measured, others: Iterable[Measured]) -> bool:
    """Whether another is at least as fast and as good, and better in one of the two."""
    mine = (one.tokens_per_s, one.quality)
    return any(
        other.tokens_per_s >= mine[0]
        and other.quality >= mine[1]
        and (other.tokens_per_s, other.quality) != mine
        for other in others
    )


def frontier(found: Sequence[Measured]) -> list[Measured]:
    """Those that no other dominates, the slowest first."""
    best = [one for one in found if not is_dominated(one, found)]
    return sorted(best, key=lambda one: one.tokens_per_s)


def choose(found: Sequence[Measured], reference: Measured, within: float) -> Measured | None:
    """The fastest whose difference to the reference is not below -`within`, of those that are
    faster than the reference; None if there is none."""
    good = [
        one
        for one in found
        if one.against(reference).difference >= -within - 1e-12
        and one.tokens_per_s > reference.tokens_per_s
    ]
    return max(good, key=lambda one: one.tokens_per_s, default=None)
