"""What Slurm does with an array, in lines: how many elements run, wait and have ended; those that
left parts undone, and the command that does these parts."""

import shlex
from collections import Counter
from collections.abc import Iterator

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.records import Submission
from pipeline.slurm.view import Submitted, Task
from pipeline.stats.formatting import one_line
from pipeline.status.logs import log_lines
from pipeline.status.slurm_lines import (
    MESSAGE_LENGTH,
    Left,
    Lines,
    has_failed,
    is_cancelled,
    messages,
    requeues,
    unknown,
    why_stopped,
)
from pipeline.status.words import ended, ranges, waits

Parts = dict[int | None, list[int]]
KINDS = ("running", "pending", "finished", "failed", "cancelled", "ended", "not known")
UNDONE = ("failed", "cancelled", "ended")
NUM_ELEMENTS = 10
"""At most so many elements that left parts undone are listed; the others are counted."""
NUM_NODES = 4
MISSING = "parts are missing"
"""Stands in why a finisher ended, if elements had left parts undone."""


def array_lines(its: Submitted, folder: RunFolder, left: Left) -> Lines:
    """The lines of a submission that is an array."""
    parts = _parts(its, left)
    kinds = {task.element: _kind(its, task, left, parts) for task in its.tasks}
    yield "slurm", _counts(its, kinds)
    if requeued := requeues(its.tasks):
        yield "requeued", requeued
    undone = [task for task in its.tasks if kinds[task.element] in UNDONE and parts[task.element]]
    for task in undone[:NUM_ELEMENTS]:
        undone_parts = f"parts {ranges(parts[task.element])} missing"
        yield "", f"{_ended(its, task, kinds[task.element], folder)}: {undone_parts}"
    if len(undone) > NUM_ELEMENTS:
        others = [task.element for task in undone[NUM_ELEMENTS:] if task.element is not None]
        yield "", f"and elements {ranges(others)}"
    failed = [task for task in undone if kinds[task.element] == "failed"]
    if failed:
        yield from log_lines(its, failed[0], messages(failed[0], folder))
    finisher = its.finisher
    is_wanted = finisher and (
        not left.is_nothing or not (_is_well(finisher) or _is_made_up(finisher))
    )
    if finisher and its.unasked is None and is_wanted:
        yield "finisher", _finisher(finisher, unknown(its), is_told=bool(undone))
        if not undone and its.is_over(finisher) and not _is_well(finisher):
            yield from log_lines(its, finisher, messages(finisher, folder))
    if undone:
        once = "once nothing of the array waits or runs: " if its.may_go_on else ""
        yield "do them", once + without_slurm(its.submission)


def _kind(its: Submitted, task: Task, left: Left, parts: Parts) -> str:
    """One of KINDS. An element whose parts are all done has finished, however it ended."""
    if task.job is not None and task.job.is_live:
        return "pending" if task.job.is_waiting else "running"
    if left.parts is not None and not parts[task.element]:
        return "finished"
    if not its.is_over(task):
        return "not known"
    state = None if task.job is None else task.job.state
    if is_cancelled(its, task):
        return "cancelled"
    return "failed" if has_failed(task) or state not in (None, "COMPLETED") else "ended"


def _parts(its: Submitted, left: Left) -> Parts:
    """Element -> the parts that it has left undone."""
    count = its.submission.array
    assert count is not None, "only arrays have elements"
    parts: Parts = {element: [] for element in range(count)}
    for part in left.parts or []:
        parts[part % count].append(part)
    return parts


def _counts(its: Submitted, kinds: dict[int | None, str]) -> str:
    counts = Counter(kinds.values())
    told = [f"{counts[kind]} {kind}{_more(its, kinds, kind)}" for kind in KINDS if counts[kind]]
    asked = "" if its.unasked is None else f"; {unknown(its)}"
    return f"array {its.submission.job_id} of {its.submission.array}: {', '.join(told)}{asked}"


def _more(its: Submitted, kinds: dict[int | None, str], kind: str) -> str:
    """Where the running elements run; what those that wait wait for."""
    jobs = [task.job for task in its.tasks if task.job and kinds[task.element] == kind]
    if kind == "pending":
        return f" ({', '.join(dict.fromkeys(waits(job) for job in jobs))})"
    if kind != "running":
        return ""
    nodes = sorted({job.nodes for job in jobs if job.nodes})
    more = f" and {len(nodes) - NUM_NODES} more" if len(nodes) > NUM_NODES else ""
    return f" on {', '.join(nodes[:NUM_NODES])}{more}" if nodes else ""


def _ended(its: Submitted, task: Task, kind: str, folder: RunFolder) -> str:
    """An element that has ended, how, and why."""
    said = messages(task, folder)
    why = list(why_stopped(its, task, said))
    if said:
        first = said[0]
        why.append(f"rank {first.rank} on {first.host}: {one_line(first.message, MESSAGE_LENGTH)}")
    return f"element {task.element} {kind}{' (' + '; '.join(why) + ')' if why else ''}"


def _is_well(finisher: Task) -> bool:
    """Whether it has ended, and not failed."""
    has_ended_ill = finisher.job is not None and finisher.job.state != "COMPLETED"
    return not finisher.is_live and not has_failed(finisher) and not has_ended_ill


def _is_made_up(finisher: Task) -> bool:
    """Whether it ended because parts were missing, as it says; called once all are there."""
    return finisher.last is not None and MISSING in (finisher.last.why or "")


def _finisher(task: Task, why_unknown: str, *, is_told: bool) -> str:
    """The job that writes the summary when all elements have ended.

    Args:
        why_unknown: why Slurm says nothing of it, if it does not.
        is_told: the parts that are missing are listed, with their elements.
    """
    job, name = task.job, f"job {task.label}"
    if job is None:
        failed = f"; it failed: {task.last.why}" if task.last and has_failed(task) else ""
        return f"{name}: {why_unknown}{one_line(failed, MESSAGE_LENGTH)}"
    if job.is_waiting:
        return f"{name} waits: {waits(job)}"
    why = "" if is_told or task.last is None else task.last.why or ""
    state = f"is {job.state}" if job.is_live else f"has ended: {ended(job)}"
    return f"{name} {state}{why and ': ' + one_line(why, MESSAGE_LENGTH)}"


def without_slurm(submission: Submission) -> str:
    """The line for a shell that does here what is left: the command that was typed, without its
    settings of Slurm. Of a sweep (-m), whose command stands for several runs, the words say so."""
    words = list(_plain(shlex.split(submission.command)))
    place = f"cd {shlex.quote(submission.working_folder)} && "
    if "jobs.submit" not in submission.command or _is_sweep(words):
        return "the same command with pipeline.run in place of jobs.submit, without slurm settings"
    return place + shlex.join("pipeline.run" if word == "jobs.submit" else word for word in words)


def _plain(words: list[str]) -> Iterator[str]:
    for word in words:
        name = word.lstrip("+~").partition("=")[0]
        if name != "slurm" and not name.startswith("slurm."):
            yield word


def _is_sweep(words: list[str]) -> bool:
    after = words[words.index("jobs.submit") + 1 :] if "jobs.submit" in words else words
    return any(word in ("-m", "--multirun") for word in after)
