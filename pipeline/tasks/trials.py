"""Runs many generations against their tests, some at a time, and says how each came out."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.tasks.base import Task
from pipeline.tasks.sandbox import Limits, Outcome, run_program


def run_all(
    rows: Iterable[dict[str, Any]], task: Task, limits: Limits, num_workers: int
) -> tuple[list[dict[str, Any]], bool]:
    """One score per row, in the order of the rows, and whether any program could reach the
    network."""
    scores: list[dict[str, Any]] = []
    has_network = False
    # Bounded, so that only a few programs are in memory, however many rows there are.
    waiting: deque[tuple[dict[str, Any], Future[Outcome | str]]] = deque()

    def collect(num_left: int) -> None:
        nonlocal has_network
        while len(waiting) > num_left:
            row, future = waiting.popleft()
            outcome = future.result()
            if isinstance(outcome, str):
                scores.append(score_of(row, False, outcome, 0.0))
                continue
            has_network = has_network or outcome.has_network
            scores.append(score_of(row, outcome.passed, outcome.reason, outcome.duration_s))

    with ThreadPoolExecutor(num_workers) as executor:
        try:
            for row in rows:
                waiting.append((row, executor.submit(judge, row, task, limits)))
                collect(num_left=4 * num_workers)
            collect(num_left=0)
        except BaseException:  # Ctrl-C too: only the programs that run are waited for
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return scores, has_network


def judge(row: dict[str, Any], task: Task, limits: Limits) -> Outcome | str:
    """Run the row's program; its outcome, or why the row has no program."""
    if row["text"] is None or row["error"] is not None:
        return f"no generation: {row['error'] or 'no text'}"
    null = [column for column in task.columns if row[column] is None]
    if null:
        return f"no test: null in column {', '.join(null)}"
    return run_program(task.program(row, row["text"]), limits)


def score_of(row: dict[str, Any], passed: bool, reason: str, duration_s: float) -> dict[str, Any]:
    """A row of scores.parquet."""
    return {
        "row_id": row["row_id"],
        "sample_index": row["sample_index"],
        "passed": passed,
        "reason": reason,
        "duration_s": duration_s,
    }


def kind_of(reason: str) -> str:
    """The reason without its details: 'failed: AssertionError: no' -> 'failed: AssertionError';
    'no generation: ...' -> 'no generation'."""
    parts = reason.split(": ")
    return ": ".join(parts[:2]) if parts[0] == "failed" else parts[0]
