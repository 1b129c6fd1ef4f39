"""Turns the workers' timelines into the lines of the report's charts over time.

    time of day    |== start 1 ==|   nothing runs   |===== start 2 =====|
    chart          |== start 1 ==|gap|===== start 2 =====|

The charts show run time: of the time between two starts only a narrow gap is left. The run time is
divided into intervals, the same for all workers, and none of them reaches over a gap. The work of a
timeline's point is spread evenly over the seconds that the point covers, and so over the intervals
that it overlaps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.charts import NUM_COLOURS, Axis, Gap, Series, Tick
from pipeline.stats.formatting import duration, short
from pipeline.stats.timeline import POINT_S
from pipeline.stats.totals import spans_of_starts, times, workers

MAX_INTERVALS = 100
MAX_LINES = 64
MAX_GAPS = 20
"""Gaps that are drawn: the longest. At the others, the starts before and after are joined."""
GAP_SHARE = 0.02
"""Width of a gap, as a share of the width of all intervals."""
UNITS = (
    ("seconds", 1.0, 180.0),
    ("minutes", 60.0, 3 * 3600.0),
    ("hours", 3600.0, float("inf")),
)
"""(Unit, seconds in one, the run time in seconds below which the charts use it)."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Work in each interval, of one worker or of several together."""

    tokens: np.ndarray
    forwards: np.ndarray
    """Forwards of single sequences."""
    iterations: np.ndarray
    present_s: np.ndarray
    """Seconds of the interval in which the worker was running; of several workers, the largest."""

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.tokens + other.tokens,
            self.forwards + other.forwards,
            self.iterations + other.iterations,
            np.maximum(self.present_s, other.present_s),
        )


@dataclass(frozen=True, slots=True)
class OverTime:
    """The charts over time: their x axis, and the lines of each chart. Places on the axis are
    shares of its length, from 0 to 1."""

    unit: str
    """Of the ticks: seconds, minutes or hours."""
    edges: list[tuple[float, float]]
    """The place where each interval begins, and where it ends."""
    moments: list[str]
    """When each interval is, to be read: 3 min 20 s."""
    ticks: list[Tick]
    gaps: list[Gap]
    num_workers: int
    run_s: float
    """The run time."""
    tokens_per_s: list[Series]
    mean_sequences: list[Series]
    tokens_per_forward: list[Series]


def over_time(timeline: pa.Table) -> OverTime | None:
    """The charts of these timelines; None if they have no points."""
    if not timeline.num_rows:
        return None
    spans = spans_of_starts(timeline)
    # Run time at the beginning of each start, and at the end of the last.
    run_time = np.concatenate([[0.0], np.cumsum([end - start for start, end in spans])])
    # Interpolating from `breaks` to `run_time_at_breaks` turns time of day into run time.
    breaks = np.array(spans).ravel()
    run_time_at_breaks = np.repeat(run_time, 2)[1:-1]
    gaps_s = breaks[2::2] - breaks[1:-1:2]
    drawn = np.sort(np.argsort(-gaps_s, kind="stable")[:MAX_GAPS])
    cuts = run_time[1:-1][drawn]
    edges = _edges(float(run_time[-1]), cuts)
    of_worker = {}
    for worker, points in workers(timeline):
        points = points.sort_by("finished_at")
        begun, done = (np.interp(time, breaks, run_time_at_breaks) for time in times(points))
        of_worker[worker] = _amounts(points, begun, done, edges)
    return OverTime(
        **_axis(edges, cuts, gaps_s[drawn]),
        num_workers=len(of_worker),
        run_s=float(run_time[-1]),
        tokens_per_s=_lines(of_worker, lambda a: (a.tokens, a.present_s)),
        mean_sequences=_lines(of_worker, lambda a: (a.forwards, a.iterations)),
        tokens_per_forward=_lines(of_worker, lambda a: (a.tokens, a.forwards)),
    )


def _edges(run_s: float, cuts: np.ndarray) -> np.ndarray:
    """The edges of the intervals in run time: each stretch between two cuts has whole intervals, so
    that none reaches over a gap."""
    num_intervals = float(np.clip(run_s / POINT_S, 1, MAX_INTERVALS))
    ends = np.concatenate([[0.0], cuts, [run_s]])
    edges = [np.zeros(1)]
    for low, high in pairwise(ends.tolist()):
        count = max(1, int((high - low) / (run_s or 1.0) * num_intervals))
        edges.append(np.linspace(low, high, count + 1)[1:])
    return np.concatenate(edges)


def _axis(edges: np.ndarray, cuts: np.ndarray, gaps_s: np.ndarray) -> dict[str, Any]:
    """The x axis: the fields of OverTime that say where the intervals, ticks and gaps are."""
    run_s = float(edges[-1]) or 1.0
    unit, size = next((unit, size) for unit, size, limit in UNITS if run_s < limit)
    length = 1 + GAP_SHARE * len(cuts)

    def place(at: float, num_before: int) -> float:
        return float((at / run_s + GAP_SHARE * num_before) / length)

    # An interval that begins at a cut lies behind its gap, one that ends there before it.
    befores = np.searchsorted(cuts, edges[:-1], side="right")
    bounds = zip(edges[:-1], edges[1:], befores, strict=True)
    axis = Axis.exact(0.0, run_s / size, 6)
    marks = ((tick, int(np.searchsorted(cuts, tick * size))) for tick in axis.ticks)
    return {
        "unit": unit,
        "edges": [(place(low, n), place(high, n)) for low, high, n in bounds],
        "moments": [duration(float(at)) for at in (edges[1:] + edges[:-1]) / 2],
        "ticks": [Tick(place(tick * size, n), short(tick)) for tick, n in marks],
        "gaps": [
            Gap(place(cut, n), place(cut, n + 1), f"nobody worked for {duration(float(gap_s))}")
            for n, (cut, gap_s) in enumerate(zip(cuts, gaps_s, strict=True))
        ],
    }


def _amounts(points: pa.Table, begun: np.ndarray, done: np.ndarray, edges: np.ndarray) -> Amounts:
    """One worker's work in each interval. Its points cover the run time from `begun` to `done`; the
    intervals lie between `edges`."""
    moments = np.maximum.accumulate(np.stack([begun, done], axis=1).ravel())

    def by_interval(amounts: np.ndarray) -> np.ndarray:
        after = np.cumsum(amounts)
        so_far = np.stack([after - amounts, after], axis=1).ravel()
        return np.diff(np.interp(edges, moments, so_far))

    forwards = [
        sum(count for _, count in by_kind) for by_kind in points["num_forwards"].to_pylist()
    ]
    return Amounts(
        tokens=by_interval(points["num_generated_tokens"].to_numpy()),
        forwards=by_interval(np.array(forwards)),
        iterations=by_interval(points["num_iterations"].to_numpy()),
        present_s=by_interval(done - begun),
    )


def _lines(
    of_worker: Mapping[str, Amounts], terms: Callable[[Amounts], tuple[np.ndarray, np.ndarray]]
) -> list[Series]:
    """The lines of a ratio, whose `terms` are numerator and denominator: one for each worker (at
    most MAX_LINES, evenly chosen), and last, if there are several workers, one for all together."""
    names, lines = list(of_worker), []
    for index, name in enumerate(names[:: -(-len(names) // MAX_LINES)]):
        colour = f"c{index}" if len(names) <= NUM_COLOURS else "thin"
        lines.append(Series(f"worker {name}", colour, _ratios(*terms(of_worker[name]))))
    if len(names) > 1:
        together = reduce(add, of_worker.values())
        lines.append(Series("all workers", "total", _ratios(*terms(together))))
    return lines


def _ratios(numerators: np.ndarray, denominators: np.ndarray) -> list[float | None]:
    """None where the denominator is 0, up to rounding."""
    return [
        float(numerator / denominator) if denominator > 1e-6 else None
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]
