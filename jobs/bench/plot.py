"""Draws the frontier: pass@1 against tokens per forward and against tokens per second."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, ScalarFormatter

MARKERS = {
    "none": "o",
    "prefix": "s",
    "dual": "^",
    "vicinity": "D",
    "commit": "v",
    "dkv": "P",
    "block_causal": "X",
}
SHOWN = 0.08
"""Range of pass@1 shown, down from the best; worse points are drawn on the lower edge."""


def draw(measured: list[dict[str, Any]], file: Path, title: str) -> None:
    """Write the plot to `file`. Colours are decoding strategies, markers are cache policies, hollow
    markers have soft iteration, and the line joins the points on the frontier."""
    mpl.use("Agg")
    decoders = list(dict.fromkeys(_strategy(one) for one in measured))
    colours = dict(zip(decoders, mpl.color_sequences["tab10"], strict=False))
    best = max(one["pass_at_1"] for one in measured)
    floor = max(best - SHOWN, min(one["pass_at_1"] for one in measured))
    figure, axes = pyplot.subplots(1, 2, figsize=(14, 6.5), sharey=True)
    _scatter(axes[0], measured, colours, "tokens_per_forward", floor)
    _scatter(axes[1], measured, colours, "tokens_per_s", floor)
    axes[0].set_xlabel("tokens per forward of a sequence")
    axes[1].set_xlabel("generated tokens per second")
    axes[0].set_ylabel("pass@1")
    axes[0].set_ylim(floor - 0.005, best + 0.005)
    axes[1].plot(*_edge(measured), c="black", lw=0.8, zorder=0)
    caches = dict.fromkeys(one["cache"] for one in measured)
    handles = [_dot("s", colour, decoder) for decoder, colour in colours.items()]
    handles += [_dot(MARKERS[cache], "black", cache) for cache in caches]
    handles.append(Line2D([], [], marker="o", ls="", mfc="none", c="black", label="soft iteration"))
    handles.append(Line2D([], [], c="black", lw=0.8, label="frontier"))
    figure.legend(handles=handles, fontsize=9, loc="center right")
    low = sum(one["pass_at_1"] < floor for one in measured)
    figure.suptitle(title + (f"; {low} settings below {floor:.2f} on the edge" if low else ""))
    figure.tight_layout(rect=(0, 0, 0.89, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def _edge(measured: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Tokens per second and pass@1 of the points on the frontier, in the order of their speed."""
    frontier = sorted(
        (one["tokens_per_s"], one["pass_at_1"]) for one in measured if one["is_on_frontier"]
    )
    return [speed for speed, _ in frontier], [quality for _, quality in frontier]


def _scatter(
    axis: Axes, measured: list[dict[str, Any]], colours: dict[str, Any], key: str, floor: float
) -> None:
    for one in measured:
        colour = colours[_strategy(one)]
        axis.scatter(
            one[key],
            max(one["pass_at_1"], floor),
            marker=MARKERS[one["cache"]],
            facecolors="none" if one["decoding"].endswith("soft") else colour,
            edgecolors=colour,
            s=45,
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter("")
    axis.grid(alpha=0.3)


def _dot(marker: str, colour: Any, label: str) -> Line2D:
    return Line2D([], [], marker=marker, ls="", c=colour, label=label)


def _strategy(one: dict[str, Any]) -> str:
    return str(one["decoding"]).split("(")[0]
