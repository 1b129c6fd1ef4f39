"""Measures quality against speed for every legal cache policy and decoding strategy.

Each strategy has a few settings. Each point is one run of the engine over all prompts, scored with
the rows' own tests. A point is on the frontier if no other point is at least as good in both pass@1
and tokens per second and better in one of them.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import ge
from pathlib import Path
from typing import Any, NamedTuple

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.legal import check_components, check_model
from engine.soft import SoftIteration
from jobs.bench.provenance import provenance
from jobs.bench.table import markdown
from jobs.bench.workload import Workload, load_workload
from pipeline.calibrate.grid import DECODER_SETTINGS

Settings = dict[str, Any]

SOFT_DECODERS = ("threshold", "hierarchical")
"""Strategies that are also run with soft iteration, at the first of their settings."""
COLUMNS = {
    "pass@1": "pass_at_1",
    "tokens/s": "tokens_per_s",
    "TPF": "tokens_per_forward",
    "query tok/tok": "query_tokens_per_token",
}


class Point(NamedTuple):
    """One combination to measure."""

    cache: str
    decoding: str
    settings: Settings
    soft: bool

    @property
    def name(self) -> str:
        fields = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.decoding}({fields})" + (" + soft" if self.soft else "")


def run(
    *,
    model: Path,
    prompts: Path,
    rows: int | None,
    max_sequences: int,
    max_new_tokens: int,
    dtype: str,
    device: str | None,
    caches: list[str],
    decoders: list[str],
    plot: Path | None,
    processes: int,
) -> dict[str, Any]:
    """Measure every point, print each and then a table of all, draw the plot, return the report."""
    settings: Settings = {
        "model": model,
        "prompts": prompts,
        "rows": rows,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "device": device,
    }
    workload = load_workload(**settings)
    print(workload.title)
    print(f"{'cache':14}{'decoding':52}" + "".join(f"{title:>15}" for title in COLUMNS))
    wanted = list(points(workload, caches, decoders))
    figures = (
        in_turn(workload, max_sequences, wanted)
        if processes == 1
        else side_by_side(settings, max_sequences, wanted, processes)
    )
    measured = [printed(one) for one in figures]
    mark_frontier(measured)
    print(markdown(measured))
    if plot is not None:
        from jobs.bench.plot import draw  # matplotlib is in the dev extra only

        draw(measured, plot, f"{workload.model.config.family}: {workload.title}")
    return {
        "benchmark": "frontier",
        "model": model.name,
        "num_prompts": len(workload.requests),
        "points": measured,
        "config": {
            "max_sequences": max_sequences,
            "max_new_tokens": max_new_tokens,
            "processes": processes,
        },
        "dtype": dtype,
        **provenance(workload.device),
    }


def points(workload: Workload, caches: list[str], decoders: list[str]) -> Iterator[Point]:
    for cache in caches:
        for decoding in decoders:
            if not _is_legal(workload, cache, decoding):
                continue
            for settings in DECODER_SETTINGS[decoding]:
                yield Point(cache, decoding, settings, soft=False)
            if decoding in SOFT_DECODERS:
                yield Point(cache, decoding, DECODER_SETTINGS[decoding][0], soft=True)


def _is_legal(workload: Workload, cache: str, decoding: str) -> bool:
    config, policy = workload.config(1), CACHE_POLICIES[cache]()
    try:
        check_components(DECODERS[decoding](), policy)
        check_model(workload.model.config, config, policy)
    except UserError:
        return False
    return True


def in_turn(
    workload: Workload, max_sequences: int, wanted: list[Point]
) -> Iterator[dict[str, Any]]:
    """The points' figures, measured one after the other."""
    _warm_up(workload, max_sequences)
    for point in wanted:
        yield measure(workload, point, max_sequences)


def side_by_side(
    settings: Settings, max_sequences: int, wanted: list[Point], processes: int
) -> Iterator[dict[str, Any]]:
    """The same figures in the same order, measured in `processes` processes that share the
    cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_start_process,
        initargs=(settings, max_sequences),
    ) as pool:
        yield from pool.map(_measure, wanted)


_in_process: dict[str, Any] = {}
"""The workload of this worker process, and its `max_sequences`; filled by _start_process."""


def _start_process(settings: Settings, max_sequences: int) -> None:
    workload = load_workload(**settings)
    _in_process.update(workload=workload, max_sequences=max_sequences)
    _warm_up(workload, max_sequences)


def _warm_up(workload: Workload, max_sequences: int) -> None:
    """Run one point and discard it, so that no measured point includes one-time costs."""
    measure(workload, Point("none", "threshold", {}, soft=False), max_sequences)


def _measure(point: Point) -> dict[str, Any]:
    return measure(_in_process["workload"], point, _in_process["max_sequences"])


def measure(workload: Workload, point: Point, max_sequences: int) -> dict[str, Any]:
    engine = DiffusionEngine(
        workload.model,
        config=workload.config(max_sequences, soft=SoftIteration(enabled=point.soft)),
        decoding=DECODERS[point.decoding](**point.settings),
        cache=CACHE_POLICIES[point.cache](),
    )
    done = workload.run(engine)
    return {
        "cache": point.cache,
        "decoding": point.name,
        "pass_at_1": workload.pass_at_1(done.results),
        **done.figures(),
    }


def printed(figures: dict[str, Any]) -> dict[str, Any]:
    """Print the figures of one point, and return them."""
    cells = "".join(f"{figures[key]:15.3f}" for key in COLUMNS.values())
    print(f"{figures['cache']:14}{figures['decoding']:52}{cells}", flush=True)
    return figures


def mark_frontier(measured: list[dict[str, Any]]) -> None:
    """Set `is_on_frontier` of every point."""

    def place(one: dict[str, Any]) -> tuple[float, float]:
        return one["pass_at_1"], one["tokens_per_s"]

    for one in measured:
        one["is_on_frontier"] = not any(
            place(other) != place(one) and all(map(ge, place(other), place(one)))
            for other in measured
        )
