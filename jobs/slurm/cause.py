"""What interrupted a start, in words for the user."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.slurm.node import NodeEnd
from jobs.slurm.outcome import JobNow
from jobs.slurm.step import StepEnd

PREEMPTION, NODE_FAILURE, TIME_LIMIT = "PREEMPTION", "NODE FAILURE", "TIME LIMIT"
REASON = re.compile(
    r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO "
    rf"({PREEMPTION}|{NODE_FAILURE}|{TIME_LIMIT}|JOB REQUEUE)"
)
"""How Slurm ends a job, in the job's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What this process has seen of an interruption."""

    end: StepEnd | None
    """None: the workers have not ended, or did not run."""
    job: JobNow | None
    restart: int
    is_warned: bool
    """By SIGUSR1, which Slurm sends before the time limit, and before a preemption if the cluster
    is set up so."""
    is_terminated: bool
    """By SIGTERM, with which Slurm ends the job."""
    nodes: Sequence[str]
    down: Sequence[str]
    """Nodes that Slurm has given up."""
    said: str
    """What Slurm gave as its reason in the job's log; empty: nothing."""
    messages: Sequence[str]
    """Last words of workers."""


def cause(seen: Seen) -> tuple[str, bool]:
    """What interrupted the work, and whether it was the time limit."""
    job, said = seen.job, seen.said
    is_requeued = job is not None and job.restarts > seen.restart
    is_preempted = said == PREEMPTION or (job is not None and job.is_preempted)
    is_timed_out = said == TIME_LIMIT or (job is not None and job.is_timed_out)
    if said == NODE_FAILURE or (is_requeued and not said and seen.down):
        return f"{_listed(seen.down) or 'a node'} failed", False
    if is_preempted or (is_requeued and not said and seen.is_warned):
        return "preempted", False
    if is_requeued:
        return f"{'preempted, or ' * (not said)}queued again with scontrol requeue", False
    if is_timed_out or seen.is_warned:
        return "its time limit came", True
    if seen.is_terminated:
        return "ended by Slurm" if job is None else "told to end (SIGTERM)", False
    return _of_step(seen), False


def said_by_slurm(log: str) -> str:
    """Slurm's reason for ending a job, in what it wrote to the job's log; empty if there is
    none."""
    found = REASON.findall(log)
    return str(found[-1]) if found else ""


def _of_step(seen: Seen) -> str:
    """What happened if Slurm has told this process nothing."""
    if seen.messages:
        return seen.messages[0]
    if seen.end is None:
        return "the workers did not run"
    if seen.end.exit_code < 0:
        return f"srun {_how(seen.end.exit_code)}"
    ends = [end for end in seen.end.nodes if end is not None]
    if not ends:
        return f"the workers did not start (srun ended with exit code {seen.end.exit_code})"
    first = min((its for its in ends if its.exit_code and not its.was_told), default=None, key=_at)
    if first is not None:
        return f"torchrun on {first.node} {_how(first.exit_code or 0)}"
    if silent := [its.node for its in ends if its.exit_code is None]:
        return f"the processes on {_listed(silent)} were killed"
    if any(its.was_told for its in ends):
        return "preempted, or its step was told to end with scancel"
    return f"torchrun ended, but not all parts are done (srun's exit code: {seen.end.exit_code})"


def _at(end: NodeEnd) -> str:
    return end.at


def _how(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed ({signal.Signals(-exit_code).name})"
    return f"ended with exit code {exit_code}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
