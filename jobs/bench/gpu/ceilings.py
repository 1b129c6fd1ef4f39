"""Measures what the card can do at best: the rates that floors are computed with."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from jobs.bench.gpu.clock import wait_for
from jobs.bench.gpu.floors import Rates

ROUNDS = 5


def measure_rates(device: torch.device, num_bytes: int = 2**30, size: int = 8192) -> Rates:
    """`num_bytes` of the copied array, which must be far larger than the L2 cache; `size` of the
    square matrices that are multiplied."""
    copy_s, read_s = _memory_s(num_bytes // 2 // size, size, device)
    num_bytes = num_bytes // 2 // size * size * 2
    return Rates(
        copy_bytes_per_s=2 * num_bytes / copy_s,
        read_bytes_per_s=num_bytes / read_s,
        flop_per_s=2 * size**3 / _product_s(size, device),
    )


def _memory_s(rows: int, columns: int, device: torch.device) -> tuple[float, float]:
    """Seconds to copy a matrix, and to read it for a product with a vector."""
    source = _random(rows, columns, device)
    target = torch.empty_like(source)
    copy_s = seconds(lambda: target.copy_(source), device)
    return copy_s, seconds(lambda: torch.mv(source, target[0]), device)


def _product_s(size: int, device: torch.device) -> float:
    a, b = (_random(size, size, device) for _ in range(2))
    return seconds(lambda: torch.mm(a, b), device)


def seconds(call: Callable[[], object], device: torch.device, count: int = 8) -> float:
    """Of one call: the median of rounds of `count` calls, after one round that is not counted."""
    times = [_round(call, device, count) for _ in range(1 + ROUNDS)]
    return statistics.median(times[1:])


def _random(rows: int, columns: int, device: torch.device) -> Tensor:
    """Random values: a card computes faster, because cooler, with constant ones."""
    return torch.empty(rows, columns, device=device, dtype=torch.bfloat16).normal_()


def _round(call: Callable[[], object], device: torch.device, count: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        call()
    end.record()
    wait_for(device)
    return begin.elapsed_time(end) / 1e3 / count
