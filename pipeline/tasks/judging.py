"""The process that judges rows, one after another.

It is started by pipeline/tasks/judges.py, several at a time, so that scoring uses all cores:
finding the code of an answer and checking a text are work of Python's own. On stdin come a Task,
its Limits and then rows, all pickled; on the former stdout goes a reply for each.
"""

import os
import pickle
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UserError
from pipeline.tasks.base import Row, Task
from pipeline.tasks.sandbox import Limits, SandboxError, run_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How one row came out."""

    passed: bool
    reason: str
    duration_s: float = 0.0
    has_network: bool = False
    values: dict[str, float] = field(default_factory=dict)
    tallies: list[tuple[str, str, float]] = field(default_factory=list)


def judge(row: Row, task: Task, limits: Limits) -> Judged:
    """Judge the row's generation.

    Raises:
        SandboxError: the sandbox is broken.
        UserError: the task needs something that is missing.
    """
    why_not = None
    if row["text"] is None or row["error"] is not None:
        why_not = f"no generation: {row['error'] or 'no text'}"
    needed = [column for column in task.columns if column not in task.nullable]
    if null := [column for column in needed if row[column] is None]:
        return Judged(passed=False, reason=why_not or f"no test: null in column {', '.join(null)}")
    if task.program is None:
        return by_verdict(row, task, why_not)
    found = Judged(passed=False, reason=why_not) if why_not else by_program(row, task, limits)
    if task.categories is not None:
        found.tallies.extend(
            (table, category, float(found.passed))
            for table, category in task.categories(row).items()
        )
    return found


def by_program(row: Row, task: Task, limits: Limits) -> Judged:
    assert task.program is not None
    own = limits if task.limits is None else task.limits(row, limits)
    outcome = run_program(task.program(row, row["text"]), own)
    return Judged(
        passed=outcome.passed,
        reason=outcome.reason,
        duration_s=outcome.duration_s,
        has_network=outcome.has_network,
    )


def by_verdict(row: Row, task: Task, why_not: str | None) -> Judged:
    """A failed row counts as an empty text, so that it has its weight in every figure."""
    assert task.verdict is not None
    start = time.perf_counter()
    text = row["text"] if why_not is None else ""
    try:
        found = task.verdict(row, text)
    except (MemoryError, RecursionError) as error:  # by the answer's size or depth
        found = task.verdict(row, "")
        why_not = "memory" if isinstance(error, MemoryError) else "failed: RecursionError"
    return Judged(
        passed=found.passed and why_not is None,
        reason=why_not or found.reason,
        duration_s=time.perf_counter() - start,
        values=dict(found.values),
        tallies=list(found.tallies),
    )


def without_text(row: Row, task: Task, reason: str) -> Judged:
    """The row as if it had no generation, with a reason of its own."""
    found = judge({**row, "text": None, "error": reason}, task, Limits())
    return Judged(passed=False, reason=reason, values=found.values, tallies=found.tallies)


def limit_memory(num_bytes: int) -> None:
    """Allow this process so many bytes of address space beyond those that it has."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = now + num_bytes
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    # What the checkers print must not get between the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:], task, limits = _next()
    if task.verdict is not None:
        limit_memory(limits.memory_bytes)
    while (row := _next()) is not None:
        try:
            reply: Any = judge(row, task, limits)
        except SandboxError as error:
            reply = error
        except UserError as error:
            reply = UserError(f"row {row['row_id']}: {error}")
        pickle.dump(reply, replies)
        replies.flush()


def _next() -> Any:
    """What comes next on stdin; None at its end."""
    try:
        return pickle.load(sys.stdin.buffer)
    except EOFError:
        return None
