"""Figures that follow from measurements: floors and the shares of them, idle time, costs.

They are computed anew whenever the report is written, since some need two measurements: the experts
that a block touches are counted on the plain engine only.
"""

from typing import Any

from engine.model.config import ModelConfig
from jobs.bench.gpu.floors import (
    Forward,
    Rates,
    floor_ms,
    touched_at_random,
    touched_by_more,
)
from jobs.bench.gpu.models import BenchModel

Measurement = dict[str, Any]


def derive(models: list[BenchModel], measurements: list[Measurement], rates: Rates | None) -> None:
    """Write what follows into the measurements of these models."""
    for model in models:
        its = [one for one in measurements if one["model"] == model.name]
        for one in its:
            idle(one)
            if rates is not None:
                _floors(model, one, its, rates)


def idle(one: Measurement) -> None:
    """The card's idle time in a block iteration: beside a graph's replay, as measured (see
    idle_of_graphs_ms); without graphs, what an unprofiled iteration takes beyond the card's busy
    time in a profiled one, unless that had more to do: its positions are others."""
    block, profile = one.get("block"), one.get("profile", {})
    if block and "idle_ms" not in block and profile.get("busy_ms", block["ms"]) < block["ms"]:
        block["idle_ms"] = block["ms"] - profile["busy_ms"]
    if block and "idle_ms" in block:
        block["idle_share"] = block["idle_ms"] / block["ms"]


def _floors(model: BenchModel, one: Measurement, its: list[Measurement], rates: Rates) -> None:
    config, length = model.config, model.block_length
    for kind in ("block", "refresh", "commit"):
        figures = one.get(kind)
        if not figures:
            continue
        num_sequences = figures["num_sequences"]
        touched, is_counted = _touched(config, kind, figures, its)
        forward = Forward(
            num_query_tokens=round(figures["num_query_tokens"]),
            num_sequences=num_sequences,
            context=figures["context"],
            # The first forward of a block asks at every position. In the others the number of
            # masks falls in equal steps, from all but the first commits to the last commits.
            num_asked=num_sequences * (length / 2 if kind == "block" else length),
            num_touched=touched,
        )
        figures["floor_ms"] = {
            "copy": floor_ms(config, forward, rates.copy_bytes_per_s, rates.flop_per_s),
            "read": floor_ms(config, forward, rates.read_bytes_per_s, rates.flop_per_s),
        }
        figures["share_of_floor"] = figures["floor_ms"]["read"] / figures["ms"]
        if config.experts is not None:
            figures["experts_touched"], figures["experts_counted"] = touched, is_counted


def _touched(
    config: ModelConfig, kind: str, figures: Measurement, its: list[Measurement]
) -> tuple[float, bool]:
    """Experts of a layer that a forward touches, and whether they were counted, with this batch or
    a smaller one. If not, tokens are taken to choose at random."""
    experts = config.experts
    if experts is None:
        return 0.0, False
    counted = {
        one["batch"]: one["experts_touched"]
        for one in its
        if one.get("experts_touched") and one["batch"] <= figures["num_sequences"]
    }
    if kind != "block" or not counted:
        return touched_at_random(experts, figures["num_query_tokens"]), False
    batch = max(counted)
    return touched_by_more(experts, counted[batch], figures["num_sequences"] / batch), True
