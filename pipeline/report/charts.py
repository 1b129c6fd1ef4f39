"""How is a chart drawn? As SVG, in text of ours, without a library: what a page can hold inline.

Colours are classes (c0, c1, ...) and variables that the page's style sheet gives.
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
    name: str
    colour: str
    """A class of the style sheet."""
    values: Sequence[float | None]
    """One for each x; None: there is nothing."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with ticks at round numbers."""

    low: float
    high: float
    ticks: list[float]

    @classmethod
    def exact(cls, low: float, high: float, num_steps: int) -> "Axis":
        """Ends where the data end."""
        step = nice_step((high - low) / num_steps)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return cls(low, high, [i * step for i in range(first, last + 1)])

    @classmethod
    def round(cls, high: float, num_steps: int, least_step: float = 0.0) -> "Axis":
        """From 0 to a tick."""
        step = max(least_step, nice_step(high / num_steps))
        last = max(1, math.ceil(high / step - 1e-9))
        return cls(0.0, last * step, [i * step for i in range(last + 1)])

    def share(self, value: float) -> float:
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
    """Lines over `xs`, from 0 to `x_end`; a dashed line at each of `marks`."""
    shown = [value for line in series for value in line.values if value is not None]
    if not shown:
        return nothing("nothing was measured")
    x_axis, y_axis = Axis.exact(0.0, x_end or 1.0, 6), Axis.round(max(shown) or 1.0, 4)
    drawn = [_axes(x_axis, y_axis, x_label)]
    for mark in marks:
        x = _x(x_axis.share(mark))
        drawn.append(f'<path class="mark" d="M{x:.1f} {TOP}V{TOP + INNER_H}"/>')
    drawn.extend(_line(xs, line, x_axis, y_axis) for line in series)
    return _svg(label, drawn)


def histogram(counts: Mapping[int, int], *, label: str, x_label: str) -> str:
    """How often each length was there, in bins of a round width."""
    if not counts:
        return nothing("no row has a length")
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
        of = f"{place * width}" if width == 1 else f"{place * width} to {(place + 1) * width - 1}"
        drawn.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{TOP + INNER_H - height:.1f}" '
            f'width="{max(0.5, end - x - 1):.1f}" height="{height:.1f}">'
            f"<title>{of} tokens: {count:,} rows</title></rect>"
        )
    return _svg(label, drawn)


def nothing(why: str) -> str:
    return f'<p class="none">{escape(why)}</p>'


def nice_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= least * (1 - 1e-9))


def _line(xs: Sequence[float], line: Series, x_axis: Axis, y_axis: Axis) -> str:
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
        if len(run) == 1:  # it is shown over the step that it is of
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
    return LEFT + INNER_W * share


def _svg(label: str, drawn: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )
