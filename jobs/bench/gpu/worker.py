"""A process of the GPU benchmark: one step of one model. Started by jobs/bench/gpu/processes.py.

It waits for a line on stdin, a JSON document that says how many seconds it has; then it prints a
line of JSON for everything that it finds.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from typing import Any

import torch

from jobs.bench.gpu import steps
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.models import BenchModel, bench_model
from jobs.bench.gpu.record import Event

STEPS = ("check", "warm", "measure")
DEVICE = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.gpu.worker", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batches", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()  # so that collecting what a case has left does not go through all libraries
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    for event in _events(arguments, told):
        print(json.dumps(event), flush=True)


def _events(arguments: argparse.Namespace, told: dict[str, Any]) -> Iterator[Event]:
    model = bench_model(arguments.model)
    sizes = steps.QUICK if arguments.quick else steps.FULL
    if arguments.step == "check":
        return _checked(model, sizes)
    if arguments.step == "warm":
        return steps.warm_model(model, arguments.batches, DEVICE)
    return _measured(model, sizes, told)


def _checked(model: BenchModel, sizes: steps.Sizes) -> Iterator[Event]:
    yield from steps.check_kernels(model, sizes, DEVICE)
    yield from steps.check_engine(model, sizes, DEVICE)


def _measured(model: BenchModel, sizes: steps.Sizes, told: dict[str, Any]) -> Iterator[Event]:
    deadline = Deadline.in_seconds(told["seconds"])
    if told["rates"]:
        yield from steps.tried("the card's rates", lambda: steps.rates_of(DEVICE, sizes))
    yield from steps.measure_model(model, sizes, DEVICE, deadline)


if __name__ == "__main__":
    main()
