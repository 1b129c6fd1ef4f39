"""Turns the workers' timelines into the lines of the report's charts over time.

    time of day    |== start 1 ==|   nothing runs   |===== start 2 =====|
    run time       |== start 1 ==|===== start 2 =====|

The charts show run time: the time between two starts is cut out. It is divided into equal
intervals, the same for all workers. The work of a timeline's point is spread evenly over the
seconds that the point covers, and so over the intervals that it overlaps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa

from pipeline.report.charts import NUM_COLOURS, Series
from pipeline.stats.timeline import POINT_S
from pipeline.stats.totals import spans_of_starts, times

MAX_INTERVALS = 100
MAX_LINES = 64
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
    """The charts over time: their x axis, and the lines of each chart."""

    unit: str
    """Of `xs`, `end` and `restarts`: seconds, minutes or hours."""
    xs: list[float]
    """The middle of each interval."""
    end: float
    restarts: list[float]
    num_workers: int
    tokens_per_s: list[Series]
    mean_sequences: list[Series]
    tokens_per_forward: list[Series]


def over_time(timeline: pa.Table) -> OverTime | None:
    """The charts of these timelines; None if they have no points."""
    if not timeline.num_rows:
        return None
    starts, ends = times(timeline)
    spans = spans_of_starts(timeline)
    # Run time at the beginning of each start, and at the end of the last.
    run_time = np.concatenate([[0.0], np.cumsum([end - start for start, end in spans])])
    # Interpolating from `breaks` to `run_time_at_breaks` turns time of day into run time.
    breaks = np.array(spans).ravel()
    run_time_at_breaks = np.repeat(run_time, 2)[1:-1]
    num_intervals = int(np.clip(run_time[-1] / POINT_S, 1, MAX_INTERVALS))
    edges = np.linspace(0.0, run_time[-1], num_intervals + 1)
    ranks = timeline["rank"].to_numpy()
    of_worker = {}
    for rank in np.unique(ranks).tolist():
        rows = np.flatnonzero(ranks == rank)
        rows = rows[np.argsort(ends[rows], kind="stable")]
        begun, done = (np.interp(time[rows], breaks, run_time_at_breaks) for time in (starts, ends))
        of_worker[rank] = _amounts(timeline.take(rows), begun, done, edges)
    unit, size = next((unit, size) for unit, size, limit in UNITS if run_time[-1] < limit)
    return OverTime(
        unit=unit,
        xs=((edges[1:] + edges[:-1]) / 2 / size).tolist(),
        end=float(run_time[-1] / size),
        restarts=(run_time[1:-1] / size).tolist(),
        num_workers=len(of_worker),
        tokens_per_s=_lines(of_worker, lambda a: (a.tokens, a.present_s)),
        mean_sequences=_lines(of_worker, lambda a: (a.forwards, a.iterations)),
        tokens_per_forward=_lines(of_worker, lambda a: (a.tokens, a.forwards)),
    )


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
    of_worker: Mapping[int, Amounts], terms: Callable[[Amounts], tuple[np.ndarray, np.ndarray]]
) -> list[Series]:
    """The lines of a ratio, whose `terms` are numerator and denominator: one for each worker (at
    most MAX_LINES, evenly chosen), and last, if there are several workers, one for all together."""
    ranks, lines = list(of_worker), []
    for index, rank in enumerate(ranks[:: -(-len(ranks) // MAX_LINES)]):
        colour = f"c{index}" if len(ranks) <= NUM_COLOURS else "thin"
        lines.append(Series(f"worker {rank}", colour, _ratios(*terms(of_worker[rank]))))
    if len(ranks) > 1:
        together = reduce(add, of_worker.values())
        lines.append(Series("all workers", "total", _ratios(*terms(together))))
    return lines


def _ratios(numerators: np.ndarray, denominators: np.ndarray) -> list[float | None]:
    """None where the denominator is 0, up to rounding."""
    return [
        float(numerator / denominator) if denominator > 1e-6 else None
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]
