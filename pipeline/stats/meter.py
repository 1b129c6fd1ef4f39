"""Counts one worker's work and measures where its time goes; makes the stats row of each part.

The rows of several parts are in the engine at once, so forwards and seconds belong to no single
part. A part's stats row holds the forwards and seconds of its worker since the worker wrote its
previous part; only the numbers of rows and tokens in it are the part's own. Added up over all parts
the figures are right, except that work is missing that a worker did before it was killed and on
parts that it never wrote. timeline/ has that work too (pipeline/stats/timeline.py).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from engine.stats import EngineStats
from pipeline.run_folder.output_rows import Outcome
from pipeline.stats.clock import CLOCK

CAUSES = ("start_s", "plan_s", "load_s", "engine_s", "claim_s", "read_s", "write_s", "idle_s")
"""What a worker spends its time on. These seconds add up to total_s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work done in a stretch of time. All amounts can be added, over time and over workers."""

    num_starts: int = 0
    """Starts of a worker."""
    num_ok: int = 0
    num_failed: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    """Before EOS."""
    num_forwards: dict[str, int] = field(default_factory=dict)
    """Forwards of single sequences, by kind."""
    num_query_tokens: dict[str, int] = field(default_factory=dict)
    num_failed_query_tokens: int = 0
    """Query tokens of forwards that ran out of memory; not in num_query_tokens. Batches have no
    padding, so every other query token belongs to a sequence."""
    num_iterations: int = 0
    total_s: float = 0.0
    start_s: float = 0.0
    """From the start of the process to the start of the job: importing libraries."""
    plan_s: float = 0.0
    """From the start of the job until the model begins to load: making the plan, or waiting for
    rank 0 to make it."""
    load_s: float = 0.0
    """Loading the model."""
    engine_s: float = 0.0
    forward_s: float = 0.0
    """The part of engine_s that was spent in the model's forward."""
    claim_s: float = 0.0
    """Claiming parts."""
    read_s: float = 0.0
    """Waiting for rows: the engine had room, but the next part was not ready."""
    write_s: float = 0.0
    """Writing parts."""
    idle_s: float = 0.0
    """Everything else: turning token ids into text, publishing counts."""
    warm_up_s: float = 0.0
    """From a worker's start to the end of its first forward. These seconds are in the ones above
    too."""

    def __add__(self, other: "Work") -> "Work":
        return self._with(other, 1)

    def __sub__(self, before: "Work") -> "Work":
        return self._with(before, -1)

    def _with(self, other: "Work", sign: int) -> "Work":
        amounts: dict[str, Any] = {}
        for name in WORK:
            left, right = getattr(self, name), getattr(other, name)
            if isinstance(left, dict):
                amounts[name] = {
                    kind: left.get(kind, 0) + sign * right.get(kind, 0) for kind in left | right
                }
            else:
                amounts[name] = left + sign * right
        return Work(**amounts)

    @property
    def mean_sequences(self) -> float | None:
        """Mean number of sequences in one batched forward: the occupancy of the batch."""
        return ratio(sum(self.num_forwards.values()), self.num_iterations)

    @property
    def tokens_per_forward(self) -> float | None:
        """TPF: tokens per forward of one sequence, every kind of forward counted."""
        return ratio(self.num_generated_tokens, sum(self.num_forwards.values()))


WORK = tuple(f.name for f in fields(Work))
"""The names of Work's fields."""
COUNTS = pa.map_(pa.string(), pa.int64())


def _type(kind: Any) -> pa.DataType:
    return {int: pa.int64(), float: pa.float64()}.get(kind, COUNTS)


WORK_SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),
        ("start", pa.int32()),
        ("share", pa.string()),
        *((name, pa.string()) for name in ("host", "device", "git_revision")),
        ("versions", pa.map_(pa.string(), pa.string())),
        *((f.name, _type(f.type)) for f in fields(Work)),
        ("mean_sequences", pa.float64()),
        ("tokens_per_forward", pa.float64()),
        *((name, pa.int64()) for name in ("peak_pages", "peak_cache_bytes")),
        ("finished_at", pa.timestamp("us", "UTC")),
    ]
)
"""One stretch of work: which worker did it in which start (starts/; null before these were
recorded) and for which share (I/N; null: a launch of all parts), what it did, and when it ended
(`finished_at`; it began `total_s` earlier)."""
STATS_SCHEMA = pa.schema([("part", pa.int32()), *WORK_SCHEMA])
"""A row of stats/."""


class Meter:
    """One worker's counters and clocks since it started."""

    def __init__(
        self,
        engine_stats: EngineStats,
        page_bytes: int,
        about: dict[str, Any],
        *,
        start_s: float = 0.0,
        plan_s: float = 0.0,
        load_s: float = 0.0,
    ) -> None:
        """Made once the model is loaded. `start_s`, `plan_s` and `load_s` have passed by then."""
        self._engine_stats = engine_stats
        self._page_bytes = page_bytes
        self._about = about
        self._began = time.perf_counter() - start_s - plan_s - load_s
        self._spent: dict[str, Any] = {
            **{"start_s": start_s, "plan_s": plan_s, "load_s": load_s},
            **dict.fromkeys(("claim_s", "read_s", "write_s"), 0.0),
        }
        self._running: tuple[str, float] | None = None
        self._counts = dict.fromkeys(
            ("num_ok", "num_failed", "num_prompt_tokens", "num_generated_tokens"), 0
        )
        self._before = Work()
        self._written: dict[int, int] = {}

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Count the time inside as claim_s, read_s or write_s."""
        assert self._running is None, f"{name} inside {self._running}"
        self._running = name, time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - self._running[1]
            self._running = None

    def count(self, outcome: Outcome) -> None:
        """Count one output row."""
        counts, result = self._counts, outcome.result
        counts["num_failed" if outcome.failed else "num_ok"] += 1
        counts["num_prompt_tokens"] += result.num_prompt_tokens
        counts["num_generated_tokens"] += len(result.token_ids)

    def work(self) -> Work:
        """All work of this worker since it started."""
        now, stats, spent = time.perf_counter(), self._engine_stats, dict(self._spent)
        if self._running is not None:
            spent[self._running[0]] += now - self._running[1]
        total_s, warm_at = now - self._began, stats.first_iteration_at
        return Work(
            num_starts=1,
            **self._counts,
            num_forwards=dict(stats.num_forwards),
            num_query_tokens=dict(stats.num_query_tokens),
            num_failed_query_tokens=stats.num_failed_query_tokens,
            num_iterations=stats.num_iterations,
            total_s=total_s,
            **spent,
            engine_s=stats.iteration_s,
            forward_s=stats.forward_s,
            idle_s=max(0.0, total_s - stats.iteration_s - sum(spent.values())),
            warm_up_s=0.0 if warm_at is None else warm_at - self._began,
        )

    def as_row(self, work: Work) -> dict[str, Any]:
        """Work of this worker that ended just now, as a row of WORK_SCHEMA."""
        peak = self._engine_stats.peak_pages
        return {
            **self._about,
            **asdict(work),
            "mean_sequences": work.mean_sequences,
            "tokens_per_forward": work.tokens_per_forward,
            "peak_pages": peak,
            "peak_cache_bytes": peak * self._page_bytes,
            "finished_at": CLOCK.now(),
        }

    def row(self, part: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The stats row of a complete part: the worker's work since its previous part, with the
        part's own numbers of rows and tokens."""
        work = self.work()
        since_last, self._before = work - self._before, work
        counts = _counts(outcomes)
        self._written[part] = counts["num_failed"]
        return {**self.as_row(since_last), "part": part, **counts}

    def take_written(self) -> dict[int, int]:
        """The parts completed since the last call -> the number of their failed rows."""
        written, self._written = self._written, {}
        return written


def stats_table(row: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([row], schema=STATS_SCHEMA)


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    results = [outcome.result for outcome in outcomes]
    num_failed = sum(outcome.failed for outcome in outcomes)
    return {
        "num_ok": len(outcomes) - num_failed,
        "num_failed": num_failed,
        "num_prompt_tokens": sum([result.num_prompt_tokens for result in results]),
        "num_generated_tokens": sum([len(result.token_ids) for result in results]),
    }


def ratio(count: float, per: float) -> float | None:
    """`count / per`; None if `per` is 0."""
    return count / per if per else None
