"""Draws line charts and histograms as SVG text that a page can hold inline, without a library.

Colours are CSS classes (c0, c1, ...), which the style sheet in pipeline/report/html.py defines.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.stats.formatting import short

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 40
INNER_W, INNER_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MAX_BARS = 24
NUM_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    colour: str
    """A CSS class: c0, c1, ..., `thin` or `total`."""
    values: Sequence[float | None]
    """One for each x; None where nothing was measured."""


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
    xs: Sequence[float],
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    marks: Iterable[float] = (),
    x_end: float,
) -> str:
    """Lines over `xs`, on an x axis from 0 to `x_end`, and a dashed vertical line at each of
    `marks`. `label` is read by screen readers."""
    shown = [value for line in series for value in line.values if value is not None]
    if not shown:
        return placeholder("nothing was measured")
    x_axis, y_axis = Axis.exact(0.0, x_end or 1.0, 6), Axis.round(max(shown) or 1.0, 4)
    drawn = [_axes(x_axis, y_axis, x_label)]
    for mark in marks:
        x = _x(x_axis.share(mark))
        drawn.append(f'<path class="mark" d="M{x:.1f} {TOP}V{TOP + INNER_H}"/>')
    drawn.extend(_line(xs, line, x_axis, y_axis) for line in series)
    return _svg(label, drawn)


def histogram(counts: Mapping[int, int], *, label: str, x_label: str) -> str:
    """Rows by length in tokens, in bins of a round width. `counts` maps a length to its rows."""
    if not counts:
        return placeholder("no row succeeded")
    low, high = min(counts), max(counts)
    width = max(1, math.ceil(nice_step((high - low + 1) / MAX_BARS)))
    bins: dict[int, int] = {}
    for length, count in counts.items():
        bins[length // width] = bins.get(length // width, 0) + count
    x_axis = Axis.exact(min(bins) * width, (max(bins) + 1) * width, 6)
    y_axis = Axis.round(max(bins.values()), 4, least_step=1.0)
    drawn = [_axes(x_axis, y_axis, x_label)]
    for place, count in sorted(bins.items()):
        x, end = (_x(x_axis.share(edge * width)) for edge in (place, place + 1))
        height = INNER_H * y_axis.share(count)
        first, last = place * width, (place + 1) * width - 1
        lengths = f"{first}" if first == last else f"{first} to {last}"
        drawn.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{TOP + INNER_H - height:.1f}" '
            f'width="{max(0.5, end - x - 1):.1f}" height="{height:.1f}">'
            f"<title>{lengths} tokens: {count:,} rows</title></rect>"
        )
    return _svg(label, drawn)


def placeholder(why: str) -> str:
    """In place of a chart or table that would be empty: why it is."""
    return f'<p class="none">{escape(why)}</p>'


def nice_step(least: float) -> float:
    """The smallest number that is 1, 2 or 5 times a power of ten and not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= least * (1 - 1e-9))


def _line(xs: Sequence[float], line: Series, x_axis: Axis, y_axis: Axis) -> str:
    """The line as an SVG path, interrupted where there is no value."""
    half = INNER_W / len(xs) / 2
    runs: list[list[tuple[float, float]]] = [[]]
    for x, value in zip(xs, line.values, strict=True):
        if value is None:
            runs.append([])
        else:
            y = TOP + INNER_H * (1 - y_axis.share(value))
            runs[-1].append((_x(x_axis.share(x)), y))
    path = ""
    for run in filter(None, runs):
        if len(run) == 1:  # a path of one point is invisible: draw it as wide as its interval
            ((x, y),) = run
            run = [(x - half, y), (x + half, y)]
        path += f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in run)}"
    title = f"<title>{escape(line.name)}</title>"
    return f'<path class="line {line.colour}" d="{path}">{title}</path>' if path else ""


def _axes(x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    bottom = TOP + INNER_H
    drawn = []
    for tick in y_axis.ticks:
        y = TOP + INNER_H * (1 - y_axis.share(tick))
        drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{INNER_W}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{short(tick)}</text>')
    for tick in x_axis.ticks:
        x = _x(x_axis.share(tick))
        drawn.append(f'<path class="tick" d="M{x:.1f} {bottom}v4"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 17}" class="middle">{short(tick)}</text>')
    middle = LEFT + INNER_W / 2
    label = f'<text x="{middle}" y="{HEIGHT - 5}" class="middle">{escape(x_label)}</text>'
    return "".join([*drawn, f'<path class="tick" d="M{LEFT} {bottom}h{INNER_W}"/>', label])


def _x(share: float) -> float:
    """The x coordinate in the drawing of a place on the x axis (see Axis.share)."""
    return LEFT + INNER_W * share


def _svg(label: str, drawn: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )
