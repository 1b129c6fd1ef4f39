"""How did the run go over time, worker by worker? From timelines to lines of a chart.

    time of day    |== start 1 ==|            |===== start 2 =====|
    at work        |== start 1 ==|===== start 2 =====|

Time between two starts is cut out. What a point of a timeline holds is spread evenly over the
seconds that it covers, and read again in steps that are the same for all workers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa

from pipeline.report.charts import NUM_COLOURS, Series
from pipeline.stats.timeline import POINT_S
from pipeline.stats.totals import covered, times

MAX_STEPS = 100
MAX_LINES = 64
UNITS = (
    ("seconds", 1.0, 180.0),
    ("minutes", 60.0, 3 * 3600.0),
    ("hours", 3600.0, float("inf")),
)


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was done in each step."""

    tokens: np.ndarray
    forwards: np.ndarray
    iterations: np.ndarray
    there_s: np.ndarray
    """Seconds of the step in which the worker was there."""

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            self.tokens + other.tokens,
            self.forwards + other.forwards,
            self.iterations + other.iterations,
            np.maximum(self.there_s, other.there_s),
        )


@dataclass(frozen=True, slots=True)
class Course:
    unit: str
    xs: list[float]
    """The middle of each step, in `unit`."""
    end: float
    restarts: list[float]
    num_workers: int
    tokens_per_s: list[Series]
    mean_sequences: list[Series]
    tokens_per_forward: list[Series]


def course(timeline: pa.Table) -> Course | None:
    """None of a run without a timeline."""
    if not timeline.num_rows:
        return None
    starts, ends = times(timeline)
    spans = covered(starts, ends)
    at_work = np.concatenate([[0.0], np.cumsum([end - start for start, end in spans])])
    breaks = np.array(spans).ravel()
    moments = np.repeat(at_work, 2)[1:-1]
    num_steps = int(np.clip(at_work[-1] / POINT_S, 1, MAX_STEPS))
    edges = np.linspace(0.0, at_work[-1], num_steps + 1)
    ranks = timeline["rank"].to_numpy()
    of_worker = {}
    for rank in np.unique(ranks).tolist():
        its = np.flatnonzero(ranks == rank)
        its = its[np.argsort(ends[its], kind="stable")]
        begun, done = (np.interp(of[its], breaks, moments) for of in (starts, ends))
        of_worker[rank] = _amounts(timeline.take(its), begun, done, edges)
    unit, size = next((unit, size) for unit, size, limit in UNITS if at_work[-1] < limit)
    return Course(
        unit=unit,
        xs=((edges[1:] + edges[:-1]) / 2 / size).tolist(),
        end=float(at_work[-1] / size),
        restarts=(at_work[1:-1] / size).tolist(),
        num_workers=len(of_worker),
        tokens_per_s=_lines(of_worker, lambda a: (a.tokens, a.there_s)),
        mean_sequences=_lines(of_worker, lambda a: (a.forwards, a.iterations)),
        tokens_per_forward=_lines(of_worker, lambda a: (a.tokens, a.forwards)),
    )


def _amounts(points: pa.Table, begun: np.ndarray, done: np.ndarray, edges: np.ndarray) -> Amounts:
    """One worker's, whose points lie between the moments `begun` and `done`."""
    moments = np.maximum.accumulate(np.stack([begun, done], axis=1).ravel())

    def in_steps(amounts: np.ndarray) -> np.ndarray:
        behind = np.cumsum(amounts)
        so_far = np.stack([behind - amounts, behind], axis=1).ravel()
        return np.diff(np.interp(edges, moments, so_far))

    forwards = [
        sum(count for _, count in by_kind) for by_kind in points["num_forwards"].to_pylist()
    ]
    return Amounts(
        tokens=in_steps(points["num_generated_tokens"].to_numpy()),
        forwards=in_steps(np.array(forwards)),
        iterations=in_steps(points["num_iterations"].to_numpy()),
        there_s=in_steps(done - begun),
    )


def _lines(
    of_worker: Mapping[int, Amounts], parts: Callable[[Amounts], tuple[np.ndarray, np.ndarray]]
) -> list[Series]:
    """A line for each worker, of more than MAX_LINES for some of them; and one for all."""
    ranks, lines = list(of_worker), []
    for place, rank in enumerate(ranks[:: -(-len(ranks) // MAX_LINES)]):
        colour = f"c{place}" if len(ranks) <= NUM_COLOURS else "thin"
        lines.append(Series(f"worker {rank}", colour, _ratios(*parts(of_worker[rank]))))
    if len(ranks) > 1:
        together = reduce(add, of_worker.values())
        lines.append(Series("all workers", "total", _ratios(*parts(together))))
    return lines


def _ratios(amounts: np.ndarray, of: np.ndarray) -> list[float | None]:
    return [
        float(amount / whole) if whole > 1e-6 else None
        for amount, whole in zip(amounts, of, strict=True)
    ]
