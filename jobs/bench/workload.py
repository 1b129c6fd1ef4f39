"""The model and prompts that the engine benchmarks run, the figures of a run, and its scoring."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import torch

from engine.engine import DiffusionEngine, EngineConfig
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request, Result
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from pipeline.tasks.functions import program
from pipeline.tasks.sandbox import Limits, run_program

DEMO = Path(__file__).parent.parent / "demo" / "model"
PROMPTS = Path(__file__).parent.parent / "demo" / "task" / "prompts.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The results and counts of one engine run over the prompts."""

    results: list[Result]
    """In the order of the prompts."""
    wall_s: float
    cpu_s: float
    """CPU seconds of all threads of this process."""
    num_iterations: int
    num_forwards: dict[str, int]
    num_query_tokens: dict[str, int]
    num_failed_query_tokens: int
    share_outside_forward: float

    @property
    def num_tokens(self) -> int:
        return sum(result.num_generated_tokens for result in self.results)

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.wall_s

    @property
    def percent_for_no_sequence(self) -> float:
        """Percentage of computed query tokens that no result counts: padding, failed forwards."""
        computed = sum(self.num_query_tokens.values()) + self.num_failed_query_tokens
        return 100 * (1 - sum(result.num_query_tokens for result in self.results) / computed)

    def figures(self) -> dict[str, Any]:
        return {
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "tokens_per_s": self.tokens_per_s,
            "num_generated_tokens": self.num_tokens,
            "num_iterations": self.num_iterations,
            "num_forwards": self.num_forwards,
            "num_query_tokens": self.num_query_tokens,
            "share_outside_forward": self.share_outside_forward,
            "tokens_per_forward": self.num_tokens / sum(self.num_forwards.values()),
            "query_tokens_per_token": sum(self.num_query_tokens.values()) / self.num_tokens,
            "percent_for_no_sequence": self.percent_for_no_sequence,
        }


@dataclass(slots=True, kw_only=True)
class Workload:
    """One model, and the requests to run it on."""

    model: Transformer
    prompter: Prompter
    table: list[dict[str, Any]]
    requests: list[Request]
    device: str
    _judged: dict[tuple[int, str], bool] = field(default_factory=dict)
    """(row, answer) -> whether the answer passes the row's tests."""

    @property
    def title(self) -> str:
        longest = max(request.max_new_tokens for request in self.requests)
        dtype = str(self.model.embed.weight.dtype).removeprefix("torch.")
        return f"{len(self.requests)} prompts, {longest} new tokens at most, {self.device} {dtype}"

    @property
    def longest(self) -> int:
        """Positions of the longest canvas, before rounding to whole blocks."""
        return max(len(r.prompt_ids) + r.max_new_tokens for r in self.requests)

    def config(self, max_sequences: int, **settings: Any) -> EngineConfig:
        """The engine's settings, with K/V pages for `max_sequences` of the longest canvases."""
        length = self.longest + 16 + (self.model.config.block_length or 0)
        return EngineConfig(
            max_sequences=max_sequences, cache_tokens=max_sequences * length, **settings
        )

    def run(self, engine: DiffusionEngine, requests: list[Request] | None = None) -> Run:
        """Run these requests, or all.

        Raises:
            RuntimeError: a request failed.
        """
        requests = self.requests if requests is None else requests
        start, cpu_start = time.perf_counter(), time.process_time()
        results = list(engine.results(requests))
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
        failed = [result for result in results if result.error is not None]
        if failed:
            raise RuntimeError(f"{len(failed)} rows failed, the first with: {failed[0].error}")
        stats = engine.stats
        return Run(
            results=sorted(results, key=lambda result: cast(int, result.request_id)),
            wall_s=wall_s,
            cpu_s=cpu_s,
            num_iterations=stats.num_iterations,
            num_forwards=stats.num_forwards,
            num_query_tokens=stats.num_query_tokens,
            num_failed_query_tokens=stats.num_failed_query_tokens,
            share_outside_forward=1 - stats.forward_s / wall_s,
        )

    def spread(self, num_requests: int) -> list[Request]:
        """So many requests, evenly from all: the first ones may be easier or harder than most."""
        num_all = len(self.requests)
        num_requests = min(num_requests, num_all)
        return [self.requests[i * num_all // num_requests] for i in range(num_requests)]

    def pass_at_1(self, results: list[Result]) -> float:
        """The share of rows whose tests pass. A row's tests run once for each distinct answer."""
        texts = [self.prompter.text(result.token_ids) for result in results]
        new = [key for key in enumerate(texts) if key not in self._judged]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._judged |= dict(zip(new, pool.map(self._passes, new), strict=True))
        return sum(self._judged[key] for key in enumerate(texts)) / len(texts)

    def _passes(self, key: tuple[int, str]) -> bool:
        row, text = self.table[key[0]], key[1]
        return run_program(program(row, text), Limits()).passed


def load_workload(
    *,
    model: Path,
    prompts: Path,
    rows: int | None,
    max_new_tokens: int,
    dtype: str,
    device: str | None,
) -> Workload:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    transformer = load_model(model, getattr(torch, dtype), device)
    prompter = Prompter(model, PromptConfig(), transformer.config.max_positions)
    table = pq.read_table(prompts).slice(0, rows).to_pylist()
    requests = [
        Request(
            request_id=i,
            prompt_ids=prompter.token_ids(row, max_new_tokens),
            max_new_tokens=max_new_tokens,
        )
        for i, row in enumerate(table)
    ]
    return Workload(
        model=transformer, prompter=prompter, table=table, requests=requests, device=device
    )


@dataclass(slots=True)
class Others:
    """How busy the machine was with other processes during a measurement."""

    share: float = 0.0
    """Mean share of all cores, from 0 to 1; known once the measurement has ended."""


@contextmanager
def others_share() -> Iterator[Others]:
    """Measure how much of the machine other processes use inside the block (Linux only; elsewhere
    the share stays 0)."""
    others, before = Others(), _cpu_seconds()
    yield others
    busy, idle, own = (after - was for after, was in zip(_cpu_seconds(), before, strict=True))
    others.share = max(0.0, busy - own) / (busy + idle) if busy + idle else 0.0


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds of all cores since boot, busy and idle, and those of this process and its ended
    children."""
    mine = os.times()
    own = mine.user + mine.system + mine.children_user + mine.children_system
    file = Path("/proc/stat")
    if not file.exists():
        return 0.0, 0.0, own
    ticks = [int(number) for number in file.read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) * tick_s, idle * tick_s, own
