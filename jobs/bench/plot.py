"""The picture of a frontier: pass@1 against tokens per forward and against tokens per second."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

MARKERS = {
    "none": "o",
    "prefix": "s",
    "dual": "^",
    "vicinity": "D",
    "commit": "v",
    "dkv": "P",
    "block_causal": "X",
}


def draw(measured: list[dict[str, Any]], file: Path, title: str) -> None:
    """A colour for each decoding strategy, a marker for each cache policy; hollow: soft
    iteration."""
    mpl.use("Agg")
    decoders = list(dict.fromkeys(_strategy(one) for one in measured))
    colours = dict(zip(decoders, mpl.color_sequences["tab10"], strict=False))
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 6), sharey=True)
    _scatter(axes[0], measured, colours, "tokens_per_forward", "tokens per forward of a sequence")
    _scatter(axes[1], measured, colours, "tokens_per_s", "generated tokens per second")
    axes[0].set_ylabel("pass@1")
    caches = dict.fromkeys(one["cache"] for one in measured)
    handles = [_dot("o", colour, decoder) for decoder, colour in colours.items()]
    handles += [_dot(MARKERS[cache], "grey", cache) for cache in caches]
    handles.append(Line2D([], [], marker="o", ls="", mfc="none", c="grey", label="soft iteration"))
    axes[1].legend(handles=handles, fontsize=8, loc="lower left", ncol=2)
    figure.suptitle(title)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def _scatter(
    axis: Axes, measured: list[dict[str, Any]], colours: dict[str, Any], key: str, label: str
) -> None:
    for one in measured:
        colour = colours[_strategy(one)]
        axis.scatter(
            one[key],
            one["pass_at_1"],
            marker=MARKERS[one["cache"]],
            facecolors="none" if one["decoding"].endswith("soft") else colour,
            edgecolors=colour,
            s=45,
        )
    axis.set_xlabel(label)
    axis.set_xscale("log")
    axis.grid(alpha=0.3, which="both")


def _dot(marker: str, colour: Any, label: str) -> Line2D:
    return Line2D([], [], marker=marker, ls="", c=colour, label=label)


def _strategy(one: dict[str, Any]) -> str:
    return str(one["decoding"]).split("(")[0]
