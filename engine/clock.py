"""Measures the seconds that the model takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds spent inside `with`, including those of a forward that fails. Where
    `with` is nested, only the outermost counts."""

    def __init__(self) -> None:
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._start()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside `with`. Not to be entered while the clock runs."""
        assert self._depth == 0, "the clock is running"
        self._depth = 1
        try:
            yield
        finally:
            self._depth = 0

    def take_s(self) -> float:
        """The seconds since the last call."""
        raise NotImplementedError

    def _start(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError


class HostClock(Clock):
    """Measures on the host, for a device that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._total_s = 0.0

    def take_s(self) -> float:
        total_s, self._total_s = self._total_s, 0.0
        return total_s

    def _start(self) -> None:
        self._total_s -= time.perf_counter()

    def _stop(self) -> None:
        self._total_s += time.perf_counter()


class CudaClock(Clock):
    """Measures with CUDA events."""

    def __init__(self) -> None:
        super().__init__()
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def take_s(self) -> float:
        total_ms = 0.0
        for begin, end in self._spans:
            end.synchronize()
            total_ms += begin.elapsed_time(end)
        self._spans.clear()
        return total_ms / 1e3

    def _start(self) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._spans.append((begin, end))

    def _stop(self) -> None:
        self._spans[-1][1].record()


def clock_of(device: torch.device) -> Clock:
    """The clock for work on a device."""
    return CudaClock() if device.type == "cuda" else HostClock()
