"""A process of the GPU benchmark: one step of one model. Started by jobs/bench/gpu/processes.py.

It waits for a line on stdin, a JSON document that says until when it may take; then it prints a
line of JSON for everything that it finds.
"""

import argparse
import gc
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from jobs.bench.gpu import steps
from jobs.bench.gpu.clock import Deadline
from jobs.bench.gpu.models import TITLES, BenchModel, bench_model
from jobs.bench.gpu.record import Event

CHECKS = {
    "kernels": steps.check_kernels,
    "engine": steps.check_engine,
    "float32": steps.check_float32,
}
DEVICE = torch.device("cuda")


class Notes(logging.Handler):
    """Prints what the engine logs as events: which linears it computes itself, say, or why it does
    without its kernels or graphs."""

    def __init__(self, what: str) -> None:
        super().__init__(logging.INFO)
        self._what = what

    def emit(self, record: logging.LogRecord) -> None:
        note = {"what": self._what, "note": record.getMessage(), "key": [self._what, record.msg]}
        print(json.dumps({"part": "notes", **note}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.gpu.worker", description=__doc__)
    parser.add_argument("step", choices=[*CHECKS, "warm", "measure"])
    parser.add_argument("model")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batches", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    logger = logging.getLogger("engine")
    logger.setLevel(logging.INFO)
    logger.addHandler(Notes(TITLES[arguments.model]))
    gc.collect()
    gc.freeze()  # so that collecting what a case has left does not go through all libraries
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    for event in _events(arguments, told):
        print(json.dumps(event), flush=True)


def _events(arguments: argparse.Namespace, told: dict[str, Any]) -> Iterator[Event]:
    model = bench_model(arguments.model)
    sizes = steps.QUICK if arguments.quick else steps.FULL
    if arguments.step in CHECKS:
        return CHECKS[arguments.step](model, sizes, DEVICE)
    if arguments.step == "warm":
        return steps.warm_model(model, arguments.batches, DEVICE)
    return _measured(model, sizes, told)


def _measured(model: BenchModel, sizes: steps.Sizes, told: dict[str, Any]) -> Iterator[Event]:
    deadline = Deadline.in_seconds(told["until"] - time.time())
    if told["rates"]:
        yield from steps.tried("the card's rates", lambda: steps.rates_of(DEVICE, sizes))
    yield from steps.measure_model(model, sizes, DEVICE, deadline)


if __name__ == "__main__":
    main()
