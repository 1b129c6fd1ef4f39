"""What does Slurm say now of these jobs? One call of squeue, with fields that all versions have.

Slurm forgets a job some minutes after its end (MinJobAge); then squeue does not name it any more.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.slurm.commands import TIMEOUT_S, NoSlurm, SlurmError, run
from pipeline.slurm.records import Submission, label

FIELDS = ("%F", "%K", "%T", "%S", "%e", "%l", "%N", "%u", "%r")
"""Job (of an element: its array), element, state, start (if pending: expected), end or the time of
its limit, time limit, nodes, user, reason."""
NO_LIMIT_S = 365 * 86400.0
SEPARATOR = "\x1f"
"""In no field, whatever the cluster's nodes and reasons are called."""
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    )
)
"""The states of jobs that are over. A state that is not known here counts as live."""
WAITING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, or an element of an array, as Slurm sees it now."""

    job_id: int
    """Of an element: that of the array."""
    element: int | None = None
    state: str
    """Slurm's word: RUNNING, PENDING, COMPLETING, CANCELLED, TIMEOUT, ..."""
    began_at: datetime | None = None
    """Start of the present start; of a pending job: when Slurm expects it to start, if it does."""
    ends_at: datetime | None = None
    """When its time limit is reached, or when it ended; None: there is no limit."""
    limit_s: float | None = None
    """Time limit of one start; None: there is none."""
    nodes: str = ""
    """As Slurm writes them: node[1-2]."""
    user: str = ""
    reason: str = ""
    """Slurm's word for why it waits or ended; may be empty."""

    @property
    def label(self) -> str:
        """As Slurm writes it: 1234, or 1234_3."""
        return label(self.job_id, self.element)

    def is_of(self, submission: Submission) -> bool:
        """Whether it was submitted so. Slurm counts ids round, so the id may by now be that of
        another user's job."""
        return self.job_id in submission.ids and self.user == submission.user

    @property
    def is_live(self) -> bool:
        """Whether it is queued or running."""
        return self.state not in ENDED

    @property
    def is_waiting(self) -> bool:
        """Whether it is queued and does not run."""
        return self.state in WAITING


def ask(ids: Sequence[int], cluster: str | None = None, timeout_s: float = TIMEOUT_S) -> list[Job]:
    """What Slurm says of these jobs, one entry for each element of an array. Jobs that it does not
    know, or not any more, are left out.

    Args:
        cluster: ask that cluster; None: the one of this machine.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
        SlurmError: squeue refuses, such as for a cluster that it does not know.
    """
    if not ids:
        return []
    where = [] if cluster is None else ["--clusters", cluster]
    listed = ",".join(map(str, ids))
    command = (
        "squeue",
        *where,
        "-h",
        "-r",
        "-t",
        "all",
        "-j",
        listed,
        "-o",
        SEPARATOR.join(FIELDS),
    )
    try:
        printed = run(*command, timeout_s=timeout_s)
    except NoSlurm:
        raise
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return []
        raise
    jobs = [_job(line.split(SEPARATOR)) for line in printed.splitlines()]
    wanted = set(ids)
    return [job for job in jobs if job is not None and job.job_id in wanted]


def cluster_name(timeout_s: float = TIMEOUT_S) -> str | None:
    """Slurm's name of this machine's cluster; None if it does not tell.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
        SlurmError: scontrol refuses.
    """
    for line in run("scontrol", "show", "config", timeout_s=timeout_s).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "ClusterName":
            return value.strip() or None
    return None


def _job(values: list[str]) -> Job | None:
    """None for a line that is no job, such as `CLUSTER: name`."""
    if len(values) != len(FIELDS) or not values[0].strip().isdigit():
        return None
    job_id, element, state, began, ends, limit, nodes, user, reason = map(str.strip, values)
    return Job(
        job_id=int(job_id),
        element=int(element) if element.isdigit() else None,
        state=state.upper(),
        began_at=moment(began),
        ends_at=moment(ends),
        limit_s=seconds(limit),
        nodes=nodes.removeprefix("(null)"),
        user=user,
        reason="" if reason in ("None", "(null)") else reason,
    )


def moment(text: str) -> datetime | None:
    """2026-11-27T01:01:07+0000; None for N/A, NONE, Unknown. Without an offset: local time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None


def seconds(text: str) -> float | None:
    """A duration as Slurm writes it: 30:00, 3:00:00, 2-00:00:00; None for UNLIMITED and others.
    Of a job without a time limit that has started, Slurm writes 365 days."""
    days, _, clock = text.rpartition("-")
    fields = clock.split(".")[0].split(":")
    if not all(field.isdigit() for field in (*fields, *([days] if days else []))):
        return None
    if len(fields) > 3 or len(fields) == 1:
        return None
    total = 0.0
    for field in fields:
        total = total * 60 + int(field)
    total += 86400 * int(days or 0)
    return None if total >= NO_LIMIT_S else total


def exit_code(label: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """How a job or element that has ended came to its end: `exit code 3` or `signal 9`; None if
    Slurm does not know it any more.

    Raises:
        NoSlurm: there is no Slurm here, or its controller does not answer.
    """
    try:
        printed = run("scontrol", "-o", "show", "job", label, timeout_s=timeout_s)
    except NoSlurm:
        raise
    except SlurmError:
        return None
    found = re.search(r" ExitCode=(\d+):(\d+) ", printed)
    if found is None:
        return None
    code, signal = found.groups()
    return f"signal {signal}" if signal != "0" else f"exit code {code}"
