"""Looks into single iterations: kernels by time, how long the card idles, experts that are read."""

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity
from torch.torch_version import TorchVersion

from engine.model.moe import Router
from jobs.bench.gpu.clock import wait_for
from jobs.bench.gpu.measure import Bench

MOST_ITERATIONS = 4
MOST_KERNELS = 12
NEEDS_CARD = "needs a card"
KEEP_TRACER = {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
"""For torch.profiler, before CUDA 12.6: in a process with CUDA graphs its tracer crashes when it is
taken down and set up again. A tracer that stays makes all later launches slower."""


class Activity(NamedTuple):
    """A kernel, copy or memset on the card."""

    name: str
    start_us: float
    end_us: float


def profile_block(bench: Bench) -> dict[str, Any]:
    """Kernels by time and the card's busy time, per block iteration; `skipped` says why there are
    none. To be called where the next iterations are block iterations.

    Kernels take as long under the profiler as without it, the host takes longer. So the idle time
    is not read from the profile: see idle_ms.
    """
    if bench.engine.runner.device.type != "cuda":
        return {"skipped": NEEDS_CARD}
    forwards = bench.model.block_length // bench.case.committed
    count = min(MOST_ITERATIONS, forwards - 1)
    if TorchVersion(torch.version.cuda or "0") < "12.6":
        os.environ.update(KEEP_TRACER)
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        iterations = [bench.iterate() for _ in range(count)]
        wait_for(bench.engine.runner.device)
    if not iterations or any(iteration.kind != "block" for iteration in iterations):
        return {"skipped": "no block iterations came next"}
    activities = [
        Activity(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type.name == "CUDA"
    ]
    if not activities:
        return {"skipped": "the profiler saw no kernels"}
    return by_time(activities, count)


def by_time(activities: list[Activity], num_iterations: int) -> dict[str, Any]:
    """Milliseconds per iteration: of the card's busy time, and of each kernel, the longest ones
    first, with the number of its launches."""
    spent: dict[str, list[float]] = defaultdict(list)
    for activity in activities:
        spent[activity.name].append(activity.end_us - activity.start_us)
    ranked = sorted(spent.items(), key=lambda item: -sum(item[1]))
    kernels = [
        {
            "name": name,
            "ms": sum(its) / 1e3 / num_iterations,
            "launches": len(its) / num_iterations,
        }
        for name, its in ranked
    ]
    return {
        "busy_ms": busy_us(activities) / 1e3 / num_iterations,
        "launches": len(activities) / num_iterations,
        "kernels": kernels[:MOST_KERNELS],
        "other_ms": sum(kernel["ms"] for kernel in kernels[MOST_KERNELS:]),
    }


def busy_us(activities: Iterable[Activity]) -> float:
    """Length of the union of the intervals: kernels may overlap."""
    total, end = 0.0, float("-inf")
    for activity in sorted(activities, key=lambda one: one.start_us):
        total += max(0.0, activity.end_us - max(activity.start_us, end))
        end = max(end, activity.end_us)
    return total


def count_touched(bench: Bench) -> float | None:
    """Experts of a layer that the query tokens of the next iteration choose, on average over the
    layers. None if no router is called as a module: there are none, or the fused kernels run."""
    chosen: list[Tensor] = []
    routers = [m for m in bench.engine.runner.model.modules() if isinstance(m, Router)]
    hooks = [
        router.register_forward_hook(lambda _, __, output: chosen.append(output[0]))
        for router in routers
    ]
    try:
        iteration = bench.iterate()
    finally:
        for hook in hooks:
            hook.remove()
    if not chosen or iteration.kind != "block":
        return None
    return sum(its.unique().numel() for its in chosen) / len(chosen)
