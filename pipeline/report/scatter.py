"""Computes a chart of points: one figure against another, and the line of the best.

templates/scatter.html turns it into markup: SVG without a viewBox, in which places are percentages,
so that it fills the width of its card while points and text keep their size. Places count from 0 to
100, to the right and downwards.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, pairwise

from pipeline.report.charts import NUM_COLOURS, Axis, Tick
from pipeline.stats.formatting import short

SHAPES = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "square": "M-4 -4h8v8h-8z",
    "triangle": "M0 -5.2L5 4h-10z",
    "diamond": "M0 -5.6L5.6 0L0 5.6L-5.6 0z",
    "wedge": "M0 5.2L5 -4h-10z",
    "plus": "M-1.8 -5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "bar": "M-5.5 -2h11v4h-11z",
}
"""Name -> SVG's path data, about the origin, in pixels."""
LOG_FROM = 5.0
"""The x axis is logarithmic if its greatest value is this many times the least."""
ROOM = 0.06
"""Empty space at each end of an axis, as a share of what is between."""


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    title: str
    """The text under the mouse."""
    colour: str
    """What its colour stands for; the legend names it."""
    shape: str = ""
    """What its shape stands for."""
    is_faint: bool = False
    is_best: bool = False
    """On the line that joins the best points."""
    label: str = ""
    """A text beside it."""
    error: float | None = None
    """Half the length of the vertical bar through it; None: it has none."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in the drawing."""

    x: float
    y: float
    d: str
    colour: int
    title: str
    is_faint: bool
    label: str
    bar: tuple[float, float] | None
    is_right: bool
    """Whether its label is to its left, because it is at the right edge."""


@dataclass(slots=True, kw_only=True)
class Scatter:
    title: str
    about: str
    x_label: str
    x_ticks: list[Tick]
    """Places are shares, as in charts.py; those of y count from the top."""
    y_ticks: list[Tick]
    marks: list[Mark]
    lines: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Pieces of the line through the best points: x1, y1, x2, y2."""
    level: float | None = None
    """Where a dashed horizontal line is."""
    colours: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    """What it stands for -> path data; empty if all points have the same shape."""


def scatter(
    title: str,
    about: str,
    points: Sequence[Point],
    *,
    x_label: str,
    floor: float | None = None,
    level: float | None = None,
) -> Scatter | None:
    """The chart; None without points. Points below `floor` are drawn there. `level` is the y of a
    dashed line."""
    if not points:
        return None
    if floor is not None:
        points = [
            replace(point, y=max(point.y, floor), error=None if point.y < floor else point.error)
            for point in points
        ]
    x_of, x_ticks = _x_axis([point.x for point in points])
    ends = (point.y + sign * (point.error or 0.0) for point in points for sign in (-1, 1))
    y_axis = _y_axis([*ends, *([] if level is None else [level])])

    def y_of(value: float) -> float:
        return 100 * min(1.0, max(0.0, 1 - y_axis.share(value)))

    colours = {
        name: i % NUM_COLOURS for i, name in enumerate(dict.fromkeys(p.colour for p in points))
    }
    names = dict.fromkeys(point.shape for point in points)
    shapes = dict(zip(names, islice(cycle(SHAPES.values()), len(names)), strict=True))
    best = sorted((point for point in points if point.is_best), key=lambda point: point.x)
    return Scatter(
        title=title,
        about=about,
        x_label=x_label,
        x_ticks=x_ticks,
        y_ticks=[Tick(1 - y_axis.share(tick), f"{tick:.3g}") for tick in y_axis.ticks],
        marks=[
            _mark(point, x_of(point.x), y_of, shapes[point.shape], colours[point.colour])
            for point in sorted(points, key=lambda point: (not point.is_faint, point.is_best))
        ],
        lines=[(x_of(a.x), y_of(a.y), x_of(b.x), y_of(b.y)) for a, b in pairwise(best)],
        level=None if level is None else y_of(level),
        colours=colours,
        shapes=shapes if len(shapes) > 1 else {},
    )


def _mark(point: Point, x: float, y_of: Callable[[float], float], shape: str, colour: int) -> Mark:
    return Mark(
        x=x,
        y=y_of(point.y),
        d=shape,
        colour=colour,
        title=point.title,
        is_faint=point.is_faint,
        label=point.label,
        bar=_bar(point, y_of),
        is_right=x > 60,
    )


def _bar(point: Point, y_of: Callable[[float], float]) -> tuple[float, float] | None:
    """The ends of its bar, which may leave the drawing only up to its edge."""
    if point.error is None:
        return None
    return y_of(point.y + point.error), y_of(point.y - point.error)


def _x_axis(values: Sequence[float]) -> tuple[Callable[[float], float], list[Tick]]:
    """From a value to its place, and the ticks."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_FROM:
        first, last = math.log10(low), math.log10(high)
        room = ROOM * (last - first)

        def of_log(value: float) -> float:
            return 100 * (math.log10(value) - first + room) / (last - first + 2 * room)

        powers = range(math.floor(first), math.ceil(last) + 1)
        ticks = [size * 10.0**power for power in powers for size in (1, 2, 5)]
        shown = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1]
        return of_log, [Tick(of_log(tick) / 100, short(tick)) for tick in shown]
    room = ROOM * (high - low) or 0.5 * abs(high) or 1.0
    axis = Axis.exact(low - room, high + room, 6)
    ticks_of = [Tick(axis.share(tick), short(tick)) for tick in axis.ticks]
    return lambda value: 100 * axis.share(value), ticks_of


def _y_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = ROOM * (high - low) or 0.02
    return Axis.exact(low - room, high + room, 5)
