"""Computes line charts, histograms and bars: where everything stands, and what its tooltip says.

templates/charts.html turns them into markup. Drawings are SVG that is stretched to the width of
its card; the labels beside them are text of the page, so they keep their size on any screen.
Coordinates inside a drawing run from 0 to SIDE, to the right and downwards. Places of labels are
shares of the width or height, from 0 to 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.stats.formatting import number, short

SIDE = 1000
MAX_BARS = 24
NUM_COLOURS = 8
MAX_NAMED = 10
"""Lines whose values a tooltip names."""
THIN = "one worker each"
"""The legend's entry for thin lines, of which there may be dozens."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    colour: str
    """A CSS class: c0, c1, ..., `thin` or `total`."""
    values: Sequence[float | None]
    """One for each interval; None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of the x axis in which there is nothing."""

    low: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a drawing, as wide as an interval: a bar, or the place that shows a title."""

    x: float
    width: float
    title: str
    height: float = SIDE


@dataclass(frozen=True, slots=True)
class Path:
    """A line in a drawing."""

    colour: str
    d: str
    """SVG's path data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    title: str
    about: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    """Their places count from the top."""
    paths: list[Path] = field(default_factory=list)
    bars: list[Box] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    """Invisible: they show the values under the mouse."""
    gaps: list[Gap] = field(default_factory=list)
    legend: dict[str, str] = field(default_factory=dict)
    """Name -> CSS class."""


@dataclass(frozen=True, slots=True)
class Bar:
    """An amount in a list of amounts, as a bar beneath its name."""

    name: str
    percent: float
    """Its length, of the longest."""
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`, with ticks at round numbers."""

    low: float
    high: float
    ticks: list[float]

    @classmethod
    def exact(cls, low: float, high: float, num_steps: int) -> "Axis":
        """An axis that ends where the data end, which may be beyond the last tick."""
        step = nice_step((high - low) / num_steps)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return cls(low, high, [i * step for i in range(first, last + 1)])

    @classmethod
    def round(cls, high: float, num_steps: int, least_step: float = 0.0) -> "Axis":
        """An axis from 0 to the first tick that is not below `high`."""
        step = max(least_step, nice_step(high / num_steps))
        last = max(1, math.ceil(high / step - 1e-9))
        return cls(0.0, last * step, [i * step for i in range(last + 1)])

    def share(self, value: float) -> float:
        """Where `value` is on the axis: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def line_chart(
    title: str,
    about: str,
    lines: Sequence[Series],
    *,
    x_label: str,
    edges: Sequence[tuple[float, float]],
    moments: Sequence[str],
    ticks: list[Tick],
    gaps: list[Gap],
) -> Chart | None:
    """Lines over intervals, each interval from `edges[i][0]` to `edges[i][1]` on the x axis and
    called `moments[i]`; None if no line has a value."""
    shown = [value for line in lines for value in line.values if value is not None]
    if not shown:
        return None
    axis = Axis.round(max(shown) or 1.0, 4)
    paths = [Path(line.colour, _path(line.values, edges, axis)) for line in lines]
    boxes = [
        Box(SIDE * low, SIDE * (high - low), _title(moment, lines, place))
        for place, ((low, high), moment) in enumerate(zip(edges, moments, strict=True))
    ]
    names = {THIN if line.colour == "thin" else line.name: line.colour for line in lines}
    return Chart(
        title=title,
        about=about,
        x_label=x_label,
        x_ticks=ticks,
        y_ticks=_y_ticks(axis),
        paths=[path for path in paths if path.d],
        boxes=boxes,
        gaps=gaps,
        legend=names if len(lines) > 1 else {},
    )


def histogram(counts: Mapping[int, int], title: str, about: str, x_label: str) -> Chart | None:
    """Rows by length in tokens, in bins of a round width; None without rows. `counts` maps a length
    to its rows."""
    if not counts:
        return None
    low, high = min(counts), max(counts)
    width = max(1, math.ceil(nice_step((high - low + 1) / MAX_BARS)))
    bins: dict[int, int] = {}
    for length, count in counts.items():
        bins[length // width] = bins.get(length // width, 0) + count
    x_axis = Axis.exact(min(bins) * width, (max(bins) + 1) * width, 6)
    y_axis = Axis.round(max(bins.values()), 4, least_step=1.0)
    bars, boxes = [], []
    for place, count in sorted(bins.items()):
        x, end = (SIDE * x_axis.share(edge * width) for edge in (place, place + 1))
        first, last = place * width, (place + 1) * width - 1
        lengths = f"{first}" if first == last else f"{first} to {last}"
        text = f"{lengths} tokens: {count:,} rows"
        gap = 0.08 * (end - x)
        bars.append(Box(x + gap / 2, end - x - gap, text, SIDE * y_axis.share(count)))
        boxes.append(Box(x, end - x, text))
    return Chart(
        title=title,
        about=about,
        x_label=x_label,
        x_ticks=[Tick(x_axis.share(tick), short(tick)) for tick in x_axis.ticks],
        y_ticks=_y_ticks(y_axis),
        bars=bars,
        boxes=boxes,
    )


def bars(rows: Iterable[tuple[str, float, str]]) -> list[Bar]:
    """A bar for each (name, amount, amount as text). One for an amount above 0 has at least 0.3 %
    of the longest one's length, so that it can be seen."""
    rows = list(rows)
    greatest = max((amount for _, amount, _ in rows), default=0.0) or 1.0
    return [
        Bar(name, max(0.3, 100 * amount / greatest) if amount else 0.0, text)
        for name, amount, text in rows
    ]


def nice_step(least: float) -> float:
    """The smallest number that is 1, 2 or 5 times a power of ten and not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= least * (1 - 1e-9))


def _path(values: Sequence[float | None], edges: Sequence[tuple[float, float]], axis: Axis) -> str:
    """The line through the middles of the intervals, interrupted where there is no value and where
    an interval does not begin where the one before ends. From its first interval's beginning to its
    last one's end it is level, so that a single interval is visible too."""
    path, before = "", -1.0
    for (low, high), value in zip(edges, values, strict=True):
        if value is None:
            path, before = _closed(path, before), -1.0
            continue
        y = f"{SIDE * (1 - axis.share(value)):.0f}"
        if abs(low - before) > 1e-9:
            path = f"{_closed(path, before)}M{SIDE * low:.1f} {y}"
        path += f"L{SIDE * (low + high) / 2:.1f} {y}"
        before = high
    return _closed(path, before)


def _closed(path: str, end: float) -> str:
    """The path, continued level to `end`, the end of its last interval; -1: it has ended."""
    return path if end < 0 else f"{path}H{SIDE * end:.1f}"


def _title(moment: str, lines: Sequence[Series], place: int) -> str:
    """A tooltip: the lines' values in an interval. Of many lines, the last ones, among which is
    their total, and how many more there are."""
    values = [(line.name, value) for line in lines if (value := line.values[place]) is not None]
    told = [f"{name} {number(value)}" for name, value in values[-MAX_NAMED:]]
    more = [f"and {len(values) - MAX_NAMED} more"] if len(values) > MAX_NAMED else []
    return f"at {moment}: {', '.join([*told, *more]) or 'nothing was measured'}"


def _y_ticks(axis: Axis) -> list[Tick]:
    return [Tick(1 - axis.share(tick), short(tick)) for tick in axis.ticks]
