"""Measures one load of a checkpoint in a fresh process; jobs/bench/load.py explains the figures.

Imports as little as possible, because a fresh process spends most of its time importing.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

from engine.model.families import FAMILIES
from engine.model.load import load_model, read_config
from engine.model.transformer import Transformer
from engine.model.weight_map import tensor_shapes, weight_map
from engine.parallel import TensorParallel
from jobs.bench.synthetic import DISK_DTYPE, wrong_parameters

GB = 1e9
SLACK_BYTES = 10**9
SAMPLE_S = 0.002
READ_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The measurements of one process."""

    num_ranks: int
    dtype: str
    model_bytes: int
    """This rank's share of the model, in memory."""
    share_bytes: int
    """This rank's share of the model, as stored."""
    largest_bytes: int
    peak_bytes: int
    anon_bytes: int
    disk_bytes: int
    """Bytes that the first load read from the disk: more than the share if the kernel reads ahead,
    less if the files could not be evicted from the page cache."""
    first_s: float
    second_s: list[float]
    read_s: list[float]
    fill_s: list[float]
    wrong: list[str]

    @property
    def bound_bytes(self) -> int:
        return self.model_bytes + self.largest_bytes + SLACK_BYTES

    def figures(self) -> dict[str, Any]:
        rounds = zip(self.second_s, self.read_s, self.fill_s, strict=True)
        return asdict(self) | {
            "bound_bytes": self.bound_bytes,
            "first_gb_per_s": self.share_bytes / GB / self.first_s,
            "second_gb_per_s": self.share_bytes / GB / min(self.second_s),
            "read_gb_per_s": self.share_bytes / GB / min(self.read_s),
            "fill_gb_per_s": self.model_bytes / GB / min(self.fill_s),
            "second_over_floor": statistics.median(
                second / (read + fill) for second, read, fill in rounds
            ),
        }


class FirstRank(TensorParallel):
    """Rank 0 of a group whose other ranks do not exist: enough to load its share."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


def in_fresh_process(folder: Path, dtype: str, num_ranks: int = 1, rounds: int = 1) -> Loaded:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, folder, dtype, num_ranks, rounds).result()


def measure(folder: Path, dtype: str, num_ranks: int, rounds: int) -> Loaded:
    """Measure loading in this process, which must not have loaded anything before."""
    torch.set_num_threads(1)
    config = read_config(folder)
    pieces = weight_map(config, FAMILIES[config.family].NAMES)
    files = sorted(folder.glob("*.safetensors"))
    with torch.device("meta"):
        Transformer(config)  # The first model makes torch import more of itself.

    def load() -> Any:
        return load_model(folder, getattr(torch, dtype), "cpu", FirstRank(num_ranks))

    _forget(files)
    disk_before = _disk_bytes()
    peak = Peak()
    first_s, model = _timed(load)
    peak_bytes, anon_bytes = peak.end()
    disk_bytes = _disk_bytes() - disk_before
    wrong = wrong_parameters(model, pieces)
    model_bytes = sum(parameter.nbytes for parameter in model.parameters())
    num_values = sum(parameter.numel() for parameter in model.parameters())
    shapes = [parameter.shape for parameter in model.parameters()]
    del model
    share_bytes = num_values * DISK_DTYPE.itemsize
    ways: list[Callable[[], Any]] = [
        load,
        lambda: _read(files, share_bytes),
        lambda: [torch.empty(shape, dtype=getattr(torch, dtype)).fill_(1) for shape in shapes],
    ]
    seconds = [[_timed(way)[0] for way in ways] for _ in range(rounds)]
    second_s, read_s, fill_s = map(list, zip(*seconds, strict=True))
    return Loaded(
        num_ranks=num_ranks,
        dtype=dtype,
        model_bytes=model_bytes,
        share_bytes=share_bytes,
        largest_bytes=max(
            torch.Size(shape).numel() * DISK_DTYPE.itemsize
            for shape in tensor_shapes(pieces).values()
        ),
        peak_bytes=peak_bytes,
        anon_bytes=anon_bytes,
        disk_bytes=disk_bytes,
        first_s=first_s,
        second_s=second_s,
        read_s=read_s,
        fill_s=fill_s,
        wrong=wrong,
    )


class Peak:
    """Records the highest memory use of this process, relative to its use now."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _memory("VmRSS"), _memory("RssAnon")
        self._anon = 0
        self._is_over = Event()
        self._sampler = Thread(target=self._sample)
        self._sampler.start()

    def end(self) -> tuple[int, int]:
        """Bytes of resident memory and of anonymous memory, at their highest since the start."""
        self._is_over.set()
        self._sampler.join()
        return _memory("VmHWM") - self._before[0], self._anon - self._before[1]

    def _sample(self) -> None:
        while True:
            self._anon = max(self._anon, _memory("RssAnon"))
            if self._is_over.wait(SAMPLE_S):
                return


def _timed(way: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `way` takes, and its result; freeing the result is not included."""
    start = time.perf_counter()
    result = way()
    return time.perf_counter() - start, result


def _read(files: list[Path], num_bytes: int) -> None:
    """Read the first `num_bytes` of the files, in order, into one buffer."""
    buffer = memoryview(bytearray(READ_BYTES))
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while num_bytes > 0 and (count := opened.readinto(buffer)):
                num_bytes -= count


def _forget(files: list[Path]) -> None:
    """Evict the files from the kernel's page cache."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _memory(field: str) -> int:
    """A memory figure of this process in bytes, by its name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) * 1024


def _disk_bytes() -> int:
    """Bytes that this process has made the kernel read from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])
