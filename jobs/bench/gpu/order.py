"""The order of the benchmark on a card:

    side by side          every model's widths run once, which compiles the kernels; its checks
    one after the other   the measurements of every model, each with its share of the time left

This process never uses the card itself.
"""

import datetime
import os
import time
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from jobs.bench.gpu.clock import BEGIN, Deadline
from jobs.bench.gpu.models import TITLES, bench_model
from jobs.bench.gpu.processes import WORKER, Task, alone, side_by_side
from jobs.bench.gpu.record import Record
from jobs.bench.gpu.report import markdown
from jobs.bench.gpu.steps import FULL, QUICK
from jobs.bench.provenance import provenance

QUICK_S, FULL_S = 95.0, 290.0
QUICK_MODELS = ("llada_moe", "llada2_mini", "llada_8b")
CHECKS = {
    "engine": "same bits in other batches of",
    "kernels": "kernels of",
    "float32": "float32 tokens of",
}
"""What is checked of every model, and what the report calls it."""
GIB_OF_A_PROCESS = 8
"""Memory of a process that checks or warms up, at most: two layers, and a forward's activations."""


def run(
    *, quick: bool, models: list[str] | None, seconds: float | None, out: Path, workers: int | None
) -> dict[str, Any]:
    """Run the benchmark and return its report, whose `exit_code` is 1 if a check does not hold or
    something failed.

    Raises:
        UserError: there is no NVIDIA GPU.
    """
    if not torch.cuda.is_available():
        raise UserError(
            "python -m jobs.bench gpu needs an NVIDIA GPU, and torch finds none here: run it on a "
            "machine with one (jobs/bench/on_gpu.sh runs all that needs a GPU)"
        )
    names = models or list(QUICK_MODELS if quick else TITLES)
    limit_s = seconds or (QUICK_S if quick else FULL_S)
    about = {"quick": quick, "seconds": limit_s, "num_cores": os.cpu_count(), **provenance("cuda")}
    about["card"] = about.pop("hardware")
    record = new_record(about, names, out)
    in_order(record, names, quick, Deadline(BEGIN + limit_s), workers or _most_at_once())
    return record.as_dict()


def new_record(about: dict[str, Any], names: list[str], folder: Path) -> Record:
    about = {"date": datetime.date.today().isoformat(), **about}
    models = [bench_model(name) for name in names]
    return Record(about=about, models=models, render=markdown, folder=folder)


def in_order(
    record: Record, names: list[str], quick: bool, deadline: Deadline, num_at_once: int
) -> None:
    flags = ("--quick",) if quick else ()
    start = time.perf_counter()
    measured = [_task("measure", name, flags) for name in names]
    measured[0].start()  # it imports its libraries meanwhile
    tasks = [task for name in names for task in _warm_ups(name, quick)]
    tasks += [_task(step, name, flags) for step in CHECKS for name in names]
    record.take(side_by_side(tasks, num_at_once, deadline.share(2)))
    took_s = time.perf_counter() - start
    record.warm_up = f"checked and compiled in {len(tasks)} processes, {num_at_once} at once"
    record.warm_up += f", in {took_s:.0f} s"
    for i, task in enumerate(measured):
        if i + 1 < len(measured):
            measured[i + 1].start()
        own = deadline.share(len(measured) - i)
        record.take(alone(task, own, rates=record.rates is None))
    record.save()


def _warm_ups(name: str, quick: bool) -> list[Task]:
    batches = (QUICK if quick else FULL).batches
    groups = [batches[i : i + 2] for i in range(0, len(batches), 2)]
    return [_task("warm", name, ("--batches", *map(str, group))) for group in groups]


def _task(step: str, name: str, arguments: tuple[str, ...]) -> Task:
    words = CHECKS.get(step) or {"warm": "warm-up of", "measure": "measurements of"}[step]
    batches = f", B={' '.join(arguments[1:])}" if step == "warm" else ""
    return Task(what=f"{words} {TITLES[name]}{batches}", command=(*WORKER, step, name, *arguments))


def _most_at_once() -> int:
    """One process a core, but one core for this one, and as many as the card's memory holds."""
    gib = torch.cuda.get_device_properties(0).total_memory // 2**30
    return max(1, min((os.cpu_count() or 1) - 1, gib // GIB_OF_A_PROCESS))
