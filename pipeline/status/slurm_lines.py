"""What Slurm does with a run, in lines: where a job runs and whether its time suffices, why it
waits, how often it was queued again, and what stopped it."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import SlurmError
from pipeline.slurm.queue import Job, exit_code
from pipeline.slurm.records import StartRecord, Stopped, stopped
from pipeline.slurm.view import ANSWER_S, Submitted, Task
from pipeline.stats.formatting import duration, one_line
from pipeline.status.logs import log_lines
from pipeline.status.words import at, ended, now, times, waits

Lines = Iterator[tuple[str, str]]
NUM_NODES = 4
NOT_RECORDED = "for a reason that is not recorded"
LENGTH = re.compile(r", after [\d.]+ \w+( \d+ \w+)?$")
"""How long a start ran: a supervisor says so after why it ended. Starts are counted by the why."""
NUM_MESSAGES, MESSAGE_LENGTH = 3, 400
"""At most so many ranks' messages are shown, each cut to so many characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a run still has to do."""

    parts: list[int] | None
    """In order; None: the plan is not made yet."""
    seconds: float | None
    """At the present rate; None: not known yet."""

    @property
    def is_nothing(self) -> bool:
        return self.parts == []


def shown(views: Sequence[Submitted]) -> list[Submitted]:
    """The submissions that are queued or running, or else the last one."""
    return [its for its in views if its.is_live] or list(views[-1:])


def job_lines(its: Submitted, folder: RunFolder, left: Left) -> Lines:
    """The lines of a submission that is no array."""
    task = its.tasks[0]
    yield "slurm", _state(its, task)
    if requeued := requeues([task]):
        yield "requeued", requeued
    if time_left := _time_left(its, task, left.seconds):
        yield "this start", time_left
    if its.is_over(task) and (has_failed(task) or not left.is_nothing):
        yield from stopped_lines(its, task, folder)


def has_failed(task: Task) -> bool:
    """Whether its last start says so. All parts may be done all the same: scoring may have failed,
    or too many rows."""
    return task.last is not None and task.last.outcome in ("failed", "stuck")


def _state(its: Submitted, task: Task) -> str:
    job, name = task.job, f"job {task.label}"
    if job is None:
        return f"{name}: {unknown(its)}; {recorded(its, task)}"
    if job.is_waiting:
        return f"{name} waits{_since(its, task)}: {waits(job)}{_expected(job)}"
    if job.state == "RUNNING":
        since = "" if job.began_at is None else f" since {at(job.began_at)}"
        doing = "" if task.last is None or task.last.ended_at else task.last.why or ""
        return f"{name} runs on {job.nodes or 'nodes unknown'}{since}{doing and ': ' + doing}"
    if job.is_live:
        where = f" on {job.nodes}" if job.nodes else ""
        return f"{name} is {job.state}{where}"
    when = "" if job.ends_at is None else f" {at(job.ends_at)}"
    return f"{name} has ended{when}: {ended(job)}"


def unknown(its: Submitted) -> str:
    """Why Slurm says nothing of a job."""
    if its.unasked is not None:
        cluster = its.submission.cluster
        of = "" if cluster is None else f" of {cluster}"
        return f"Slurm{of} cannot be asked here ({one_line(its.unasked, MESSAGE_LENGTH)})"
    return "Slurm knows no such job any more"


def recorded(its: Submitted, task: Task) -> str:
    """What the records say of a job."""
    if its.submission.cancelled_at is not None:
        return f"it was cancelled {at(its.submission.cancelled_at)}"
    if task.last is None:
        return f"submitted {at(its.submission.submitted_at)}, no start of it is recorded"
    last = task.last
    where = _start(last)
    if last.ended_at is None:
        return f"{where} began {at(last.began_at)}, and no end of it is recorded"
    return f"{where} ended {at(last.ended_at)}: {last.outcome or last.why or 'not known how'}"


def _start(start: StartRecord) -> str:
    """A start by its number and nodes."""
    more = len(start.nodes) - NUM_NODES
    nodes = ", ".join(start.nodes[:NUM_NODES]) + (f" and {more} more" if more > 0 else "")
    return f"start {start.restart} on {nodes or 'nodes unknown'}"


def _since(its: Submitted, task: Task) -> str:
    if task.last is None:
        return f" since {at(its.submission.submitted_at)}"
    return f" to start again{'' if not task.last.ended_at else f' since {at(task.last.ended_at)}'}"


def _expected(job: Job) -> str:
    """When it starts, if Slurm expects it to at all; a start that has passed is no news."""
    if job.began_at is None or job.began_at < now():
        return ""
    return f"; starts {'' if job.reason == 'BeginTime' else 'about '}{at(job.began_at)}"


def requeues(tasks: Sequence[Task]) -> str | None:
    """How often jobs were queued again, and why; None if they never were."""
    why = Counter[str]()
    for task in tasks:
        ended = [start for start in task.starts if start is not task.last or _is_again(task)]
        why.update(map(_why_again, ended))
        # A start that fails before its supervisor begins leaves no record.
        if task.last is not None and task.last.restart >= len(task.starts):
            why[NOT_RECORDED] += task.last.restart + 1 - len(task.starts)
    if not why:
        return None
    reasons = [f"{reason} ({count})" if count > 1 else reason for reason, count in why.items()]
    return f"{times(why.total())}: {'; '.join(reasons)}"


def _is_again(task: Task) -> bool:
    """Whether its last start has ended and it is queued again."""
    assert task.last is not None, "asked of a task with starts"
    is_killed = task.last.ended_at is None and task.job is not None and task.job.is_waiting
    return is_killed or task.last.outcome == "requeued"


def _why_again(start: StartRecord) -> str:
    if start.ended_at is None:
        return "killed by Slurm, or with its node"
    why = LENGTH.sub("", start.why or "")
    return one_line(why, MESSAGE_LENGTH) or NOT_RECORDED


def _time_left(its: Submitted, task: Task, left_s: float | None) -> str | None:
    """How long the present start may still run, and whether that is enough; None: it does not run,
    or has no limit."""
    job = task.job
    if job is None or job.state != "RUNNING" or job.ends_at is None or job.limit_s is None:
        return None
    settings = its.submission.slurm
    signal_s = float(settings.get("signal_s") or 0)
    rest_s = max(0.0, (job.ends_at - now()).total_seconds())
    text = f"{duration(rest_s)} until its time is over"
    if left_s is None:
        return text
    if left_s <= rest_s - signal_s:
        return f"{text}, which suffices at this rate"
    if not settings.get("requeue", True):
        return f"{text}, too short at this rate; with slurm.requeue=false it ends then"
    useful_s = max(1.0, job.limit_s - signal_s)
    more = math.ceil((left_s - max(0.0, rest_s - signal_s)) / useful_s)
    text += f", too short at this rate: {more} more start{'s' if more > 1 else ''} after it"
    before = 0 if task.last is None else task.last.restart
    most = settings.get("max_requeues")
    if most is not None and before + more > most:
        text += f", and slurm.max_requeues={most} allows {max(0, most - before)}"
    return text


def stopped_lines(its: Submitted, task: Task, folder: RunFolder) -> Lines:
    """What stopped a job that left something undone: its own words, then Slurm's, then the log's
    last lines."""
    said = messages(task, folder)
    yield "stopped", "; ".join(why_stopped(its, task, said)) or "not known"
    for one in said[:NUM_MESSAGES]:
        yield "", f"rank {one.rank} on {one.host}: {one_line(one.message, MESSAGE_LENGTH)}"
    if len(said) > NUM_MESSAGES:
        yield "", f"and {len(said) - NUM_MESSAGES} more ranks"
    if not is_cancelled(its, task):
        yield from log_lines(its, task, said)


def is_cancelled(its: Submitted, task: Task) -> bool:
    """Whether a user has ended it: then its logs tell nothing of why."""
    outcome = None if task.last is None else task.last.outcome
    if outcome in (None, "requeued"):  # it has not ended by itself
        is_marked = its.submission.cancelled_at is not None
        return is_marked or (task.job is not None and task.job.state == "CANCELLED")
    return outcome == "cancelled"


def messages(task: Task, folder: RunFolder) -> list[Stopped]:
    """What the ranks of its last start said when they stopped, the first to stop first."""
    if task.last is None:
        return []
    return stopped(folder, task.job_id, task.element, task.last.restart)


def why_stopped(its: Submitted, task: Task, said: Sequence[Stopped]) -> Iterator[str]:
    """What is known of the end of a job or element that is over, without what its ranks said."""
    if its.submission.cancelled_at is not None:
        yield f"cancelled with jobs.cancel {at(its.submission.cancelled_at)}"
    last = task.last
    if last is not None and last.outcome is not None:
        is_told = last.why in [one.message for one in said]
        why = f": {one_line(last.why, MESSAGE_LENGTH)}" if last.why and not is_told else ""
        yield f"{_start(last)} {last.outcome}{why}"
    elif last is not None:
        yield f"{_start(last)} was killed"
    if task.job is not None and (last is None or last.outcome in (None, "requeued")):
        code = _exit_code(task)
        yield f"{ended(task.job)}{'' if code is None else f', {code}'}"


def _exit_code(task: Task) -> str | None:
    """None if Slurm does not answer now: it did a moment ago, and the state is known from then."""
    try:
        return exit_code(task.label, ANSWER_S)
    except SlurmError:
        return None
