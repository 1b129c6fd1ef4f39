"""Draws the frontier: quality against tokens per second, and against tokens per forward."""

from pipeline.calibrate.halving import PER_FORWARD, PER_SECOND, frontier
from pipeline.calibrate.measure import Measured
from pipeline.calibrate.sweep import Outcome
from pipeline.report.scatter import Point as Dot
from pipeline.report.scatter import Scatter, scatter
from pipeline.stats.formatting import number

SHOWN = 0.08
"""Range of quality in the charts, down from the best; worse settings are drawn on the lower
edge."""

UNITS = {PER_SECOND: "tokens/s", PER_FORWARD: "tokens per forward"}


def charts(outcome: Outcome, quality: str, within: float) -> list[Scatter]:
    """Quality against tokens per second and against tokens per forward. Of settings that were tried
    on fewer rows, the quality is the reference's on all rows and the difference on theirs, at most
    1; the few rows of the first rung tell nothing that could be drawn."""
    made = []
    for title, speed in (
        ("tokens per second in the engine, smoothed", PER_SECOND),
        ("tokens per forward of a sequence", PER_FORWARD),
    ):
        dots = dots_of(outcome, speed)
        if all(dot.is_faint for dot in dots):
            continue  # nothing on all rows made a token: a stand-in, or all rows failed
        floor = max(dot.y for dot in dots if not dot.is_faint) - SHOWN
        low = sum(dot.y < floor for dot in dots)
        about = f"against {title}" + f"; {low} settings below {floor:.2f} on the edge" * (low > 0)
        if early := sum(is_early(one, outcome) for one in outcome.everything):
            about += f"; without {early} that were dropped on the first rung"
        chart = scatter(
            quality.capitalize(),
            about,
            dots,
            x_label=title,
            floor=floor,
            level=outcome.reference.quality - within,
        )
        made += [chart] if chart else []
    return made


def dots_of(outcome: Outcome, speed: str) -> list[Dot]:
    """A dot for each setting; the best of those on all rows are joined, by this speed."""
    reference, whole = outcome.reference, [outcome.reference, *outcome.last]
    best = frontier(whole, speed)
    chosen = outcome.fastest if speed == PER_SECOND else outcome.most_per_forward
    dots = []
    for one in outcome.everything:
        x = getattr(one, speed)
        if x <= 0 or is_early(one, outcome):
            continue
        found = one.against(reference)
        y = min(1.0, reference.quality + found.difference)
        is_best = one in best
        label = "chosen" if one is chosen else "one token per iteration" * (one is reference)
        dots.append(
            Dot(
                x,
                y,
                f"{one.point.short}: {y:.4f} on {one.num_rows:,} rows, {number(x)} {UNITS[speed]}",
                one.point.decoding_name,
                one.point.cache_name,
                is_faint=one not in whole,
                is_best=is_best,
                label=label,
                error=found.se if is_best and one is not reference else None,
            )
        )
    return dots


def is_early(one: Measured, outcome: Outcome) -> bool:
    """Whether it got no further than the first of several rungs."""
    return one.rung == outcome.rungs[0] and len(outcome.rungs) > 1
