"""What is counted, one row per part, and how it adds up.

Parts overlap in the engine, so a part's row holds what its worker counted and spent since it wrote
the part before. Of an unbroken run the sum over all parts is right, and a single row is roughly its
part's; after a kill the sums hold the time and forwards of lost work too, as far as a part was
written behind it. Exact counts of the output are in data/.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.stats import EngineStats
from pipeline.folder import RunFolder
from pipeline.write import Outcome

COUNTS = pa.map_(pa.string(), pa.int64())
STATS_SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in ("part", "rank")),
        *((name, pa.string()) for name in ("host", "device", "git_revision")),
        ("versions", pa.map_(pa.string(), pa.string())),
        *((name, pa.int64()) for name in ("num_ok", "num_failed")),
        *((name, pa.int64()) for name in ("num_prompt_tokens", "num_generated_tokens")),
        *((name, COUNTS) for name in ("num_forwards", "num_query_tokens")),
        ("num_iterations", pa.int64()),
        ("mean_sequences", pa.float64()),
        *((name, pa.int64()) for name in ("peak_pages", "peak_cache_bytes")),
        *((f"{name}_s", pa.float64()) for name in ("total", "engine", "forward")),
        *((f"{name}_s", pa.float64()) for name in ("claim", "read", "write", "idle")),
        ("finished_at", pa.timestamp("us", "UTC")),
    ]
)


TIMES = ("engine_s", "forward_s", "claim_s", "read_s", "write_s", "idle_s")


class Meter:
    """One worker's counters and clocks since the part that it wrote last."""

    def __init__(self, engine_stats: EngineStats, page_bytes: int, about: dict[str, Any]) -> None:
        self._engine_stats = engine_stats
        self._page_bytes = page_bytes
        self._about = about
        self._before = deepcopy(engine_stats)
        self._start = time.perf_counter()
        self._spent = {"claim_s": 0.0, "read_s": 0.0, "write_s": 0.0}

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Count the time inside as claim_s (drawing parts), read_s (waiting for rows and their
        prompts, which are made beside the engine) or write_s."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start

    def row(self, part: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The stats row of a part that is complete; the next begins."""
        now, before, stats = time.perf_counter(), self._before, deepcopy(self._engine_stats)
        total_s, engine_s = now - self._start, stats.iteration_s - before.iteration_s
        num_iterations = stats.num_iterations - before.num_iterations
        num_forwards = _difference(stats.num_forwards, before.num_forwards)
        num_failed = sum(outcome.failed for outcome in outcomes)
        row = {
            **self._about,
            **self._spent,
            "part": part,
            "num_ok": len(outcomes) - num_failed,
            "num_failed": num_failed,
            "num_prompt_tokens": sum(o.result.num_prompt_tokens for o in outcomes),
            "num_generated_tokens": sum(o.result.num_generated_tokens for o in outcomes),
            "num_forwards": num_forwards,
            "num_query_tokens": _difference(stats.num_query_tokens, before.num_query_tokens),
            "num_iterations": num_iterations,
            "mean_sequences": ratio(sum(num_forwards.values()), num_iterations),
            "peak_pages": stats.peak_pages,
            "peak_cache_bytes": stats.peak_pages * self._page_bytes,
            "total_s": total_s,
            "engine_s": engine_s,
            "forward_s": stats.forward_s - before.forward_s,
            "idle_s": max(0.0, total_s - engine_s - sum(self._spent.values())),
            "finished_at": datetime.now(UTC),
        }
        self._before, self._start, self._spent = stats, now, dict.fromkeys(self._spent, 0.0)
        return row


@dataclass(slots=True, kw_only=True)
class Totals:
    """Stats rows added up."""

    num_parts: int = 0
    num_ok: int = 0
    num_failed: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards of single sequences, by kind."""
    num_query_tokens: dict[str, int] = field(default_factory=dict)
    num_iterations: int = 0
    peak_pages: int = 0
    peak_cache_bytes: int = 0
    engine_s: float = 0.0
    """Over all workers."""
    forward_s: float = 0.0
    claim_s: float = 0.0
    read_s: float = 0.0
    write_s: float = 0.0
    idle_s: float = 0.0
    wall_s: float = 0.0
    """While at least one worker was at work; time between two starts is not in it."""
    hosts: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float | None:
        return ratio(self.num_generated_tokens, self.wall_s)

    @property
    def tokens_per_engine_s(self) -> float | None:
        """What one worker makes while its engine is at work."""
        return ratio(self.num_generated_tokens, self.engine_s)

    @property
    def tokens_per_forward(self) -> float | None:
        """TPF: over forwards of single sequences, of every kind."""
        return ratio(self.num_generated_tokens, sum(self.num_forwards.values()))

    @property
    def query_tokens_per_token(self) -> float | None:
        return ratio(sum(self.num_query_tokens.values()), self.num_generated_tokens)

    @property
    def mean_sequences(self) -> float | None:
        """Sequences in one batched forward."""
        return ratio(sum(self.num_forwards.values()), self.num_iterations)

    def as_dict(self) -> dict[str, Any]:
        rates = (
            *("tokens_per_s", "tokens_per_engine_s", "tokens_per_forward"),
            *("query_tokens_per_token", "mean_sequences"),
        )
        return {**asdict(self), **{name: getattr(self, name) for name in rates}}


def add_up(rows: Iterable[dict[str, Any]]) -> Totals:
    """The totals of stats rows, as read from stats/."""
    totals, intervals = Totals(), []
    for row in rows:
        totals.num_parts += 1
        for name in ("num_ok", "num_failed", "num_prompt_tokens", "num_generated_tokens"):
            setattr(totals, name, getattr(totals, name) + row[name])
        for name in (*TIMES, "num_iterations"):
            setattr(totals, name, getattr(totals, name) + row[name])
        for name in ("num_forwards", "num_query_tokens"):
            for kind, count in row[name]:
                of_kind = getattr(totals, name)
                of_kind[kind] = of_kind.get(kind, 0) + count
        for name in ("peak_pages", "peak_cache_bytes"):
            setattr(totals, name, max(getattr(totals, name), row[name]))
        totals.hosts = sorted({*totals.hosts, row["host"]})
        totals.devices = sorted({*totals.devices, row["device"]})
        end = row["finished_at"].timestamp()
        intervals.append((end - row["total_s"], end))
    totals.wall_s = _covered(intervals)
    return totals


def stats_table(row: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([row], schema=STATS_SCHEMA)


def read_stats(folder: RunFolder, parts: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The stats rows of these parts, but for those that have none."""
    for part in sorted(parts):
        if folder.stats_file(part).is_file():
            yield from pq.ParquetFile(folder.stats_file(part)).read().to_pylist()


def _covered(intervals: list[tuple[float, float]]) -> float:
    """The length of the union."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _difference(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {kind: count - before.get(kind, 0) for kind, count in now.items()}


def ratio(count: float, of: float) -> float | None:
    return count / of if of else None
