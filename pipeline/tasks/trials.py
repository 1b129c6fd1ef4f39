"""Judges many generations, some at a time, and says how each came out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from pipeline.tasks.base import Task
from pipeline.tasks.judges import Judge
from pipeline.tasks.judging import Judged
from pipeline.tasks.sandbox import Limits

COLUMNS = ("row_id", "sample_index", "text", "error")
"""The columns that every row has."""


def run_all(
    rows: Iterable[dict[str, Any]],
    task: Task,
    limits: Limits,
    num_workers: int,
    on_done: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """One score per row, in the order of the rows, and whether any program could reach the
    network. `on_done` is told how many rows are done, after each.

    Raises:
        SandboxError, JudgeError: the sandbox or the task is broken.
    """
    scores: list[dict[str, Any]] = []
    has_network = False
    # Bounded, so that only a few rows are in memory, however many there are.
    waiting: deque[tuple[dict[str, Any], Future[Judged]]] = deque()

    def collect(num_left: int) -> None:
        nonlocal has_network
        while len(waiting) > num_left:
            row, future = waiting.popleft()
            judged = future.result()
            has_network = has_network or judged.has_network
            scores.append(score_of(row, judged))
            if on_done is not None:
                on_done(len(scores))

    with judging(task, limits, num_workers) as judge, ThreadPoolExecutor(num_workers) as executor:
        try:
            for row in rows:
                waiting.append((row, executor.submit(judge, row)))
                collect(num_left=4 * num_workers)
            collect(num_left=0)
        except BaseException:  # Ctrl-C too: only the programs that run are waited for
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return scores, has_network


@contextmanager
def judging(
    task: Task, limits: Limits, num_workers: int
) -> Iterator[Callable[[dict[str, Any]], Judged]]:
    """Inside, a function that judges a row; so many threads may call it at once."""
    judges = [Judge(task, limits) for _ in range(num_workers)]
    free: SimpleQueue[Judge] = SimpleQueue()
    for one in judges:
        free.put(one)

    def judge(row: dict[str, Any]) -> Judged:
        one = free.get()
        try:
            return one.judge({name: row.get(name) for name in (*COLUMNS, *task.columns)})
        finally:
            free.put(one)

    try:
        yield judge
    finally:
        for one in judges:
            one.close()


def score_of(row: dict[str, Any], judged: Judged) -> dict[str, Any]:
    """A row of scores.parquet, with the values of the task's metrics, and its `tallies`."""
    return {
        "row_id": row["row_id"],
        "sample_index": row["sample_index"],
        "passed": judged.passed,
        "reason": judged.reason,
        "duration_s": judged.duration_s,
        **judged.values,
        "tallies": judged.tallies,
    }


def kind_of(reason: str) -> str:
    """The reason without its details: 'failed: AssertionError: no' -> 'failed: AssertionError';
    'no generation: ...' -> 'no generation'."""
    parts = reason.split(": ")
    return ": ".join(parts[:2]) if parts[0] == "failed" else parts[0]
