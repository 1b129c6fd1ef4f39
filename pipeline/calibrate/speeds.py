"""How fast is each setting, without the luck of its own few seconds on the clock?

Forwards and tokens are counted, and are the same on every machine and in every repetition; seconds
swing with whatever else a machine does. So the seconds of all settings of a rung are explained
together:

    seconds = a * iterations of the batch + b * forwards of sequences + c * query tokens

with the same three costs, none below 0, for all. They are fitted by least squares of the relative
errors: a setting that was hit by a burst, and took twice its time, moves them little, since its
error is at most 1, however long it took. The few settings of a last rung only scale the costs of
the rung before: its batches are fuller.

What a strategy or policy costs beyond these counts shows as a deviation of its seconds from the fit
that comes back rung after rung. A setting's deviation is the median of those of its rungs and of
two zeros: on a single rung it is nothing, on two it is half of the smaller one if both agree, and
one burst among several rungs never counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from statistics import median

import numpy as np

from pipeline.calibrate.measure import Measured
from pipeline.stats.totals import Totals

TO_SD = 1.4826
"""From the median size of a normal variable to its standard deviation."""
LEAST_FITTED = 16
"""Fewer settings tell no costs apart: the costs of the rung before are scaled to them."""
LEAST_PAIRS = 8
"""Of fewer, the swing is not told."""


@dataclass(slots=True)
class Speeds:
    """Smooths the speeds of a sweep's rungs, one after another."""

    costs: np.ndarray = field(default_factory=lambda: np.zeros(len(counts(Totals()))))
    """(3,) seconds per iteration, forward and query token: the last rung's fit."""
    deviations: dict[str, list[float]] = field(default_factory=dict)
    """Name of a setting -> log of its seconds over those of the fit, rung by rung."""

    def add(self, found: Sequence[Measured]) -> None:
        """Fit the costs to a rung's settings, note how each deviates, and smooth their speeds."""
        timed = [one for one in found if is_timed(one.work)]
        if not self.costs.any() or len(timed) >= LEAST_FITTED:
            works = [one.work for one in timed]
            self.costs = fitted(list(map(counts, works)), [work.engine_s for work in works])
        elif timed:
            self.costs *= math.exp(median(map(self._deviation, timed)))
        for one in timed:
            self.deviations.setdefault(one.point.name, []).append(self._deviation(one))
        self.smooth(*timed)

    def smooth(self, *found: Measured) -> None:
        """Set `smoothed_per_s` of these, by the costs and deviations that are known."""
        for one in found:
            if is_timed(one.work):
                own = math.exp(median([0.0, 0.0, *self.deviations.get(one.point.name, ())]))
                seconds = own * float(np.dot(counts(one.work), self.costs))
                one.smoothed_per_s = one.work.num_generated_tokens / seconds

    def _deviation(self, one: Measured) -> float:
        return math.log(one.work.engine_s / float(np.dot(counts(one.work), self.costs)))

    @property
    def swing(self) -> float | None:
        """The standard deviation of a setting's time on one rung, as a share of it: from how much
        the deviations of a setting differ from rung to rung."""
        steps = [
            abs(after - before) / math.sqrt(2)
            for its in self.deviations.values()
            for before, after in pairwise(its)
        ]
        return TO_SD * median(steps) if len(steps) >= LEAST_PAIRS else None


def counts(work: Totals) -> list[int]:
    """What its seconds are explained by."""
    forwards, tokens = work.num_forwards.values(), work.num_query_tokens.values()
    return [work.num_iterations, sum(forwards), sum(tokens)]


def is_timed(work: Totals) -> bool:
    return work.engine_s > 0 and work.num_iterations > 0


def fitted(counted: Sequence[Sequence[int]], seconds: Sequence[float]) -> np.ndarray:
    """The costs (K,), none below 0, of counts (N, K) that explain these seconds (N,) with the least
    squares of the relative errors. K is small, so every choice of the costs that are not 0 is
    tried: the best of those without a negative one is the optimum."""
    shares = np.asarray(counted, dtype=float) / np.asarray(seconds, dtype=float)[:, None]
    sizes = np.linalg.norm(shares, axis=0)
    best, least = np.zeros(shares.shape[1]), math.inf
    usable = [k for k in range(len(sizes)) if sizes[k] > 0]
    for num in range(1, len(usable) + 1):
        for chosen in map(list, combinations(usable, num)):
            part = shares[:, chosen] / sizes[chosen]
            costs = np.linalg.lstsq(part, np.ones(len(part)), rcond=None)[0]
            error = float(np.square(part @ costs - 1).sum())
            if (costs >= 0).all() and error < least - 1e-12:
                best, least = np.zeros(len(sizes)), error
                best[chosen] = costs / sizes[chosen]
    return best
