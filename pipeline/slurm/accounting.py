"""How many GPU hours has Slurm counted for a run? From `sacct`, where a cluster keeps accounts.

Each start of a job is a record of its own there, also those that were preempted or killed. A start
that still runs counts up to now: the summary of a run is written while its last start runs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import TIMEOUT_S, run
from pipeline.slurm.queue import cluster_name, moment
from pipeline.slurm.records import Submission, submissions

FIELDS = ("JobID", "Submit", "Start", "End", "ElapsedRaw", "NNodes", "AllocTRES")
SKEW = timedelta(minutes=5)
"""Between the clocks of two machines."""
GPUS = re.compile(r"(?:^|,)gres/gpu(:[^=,]+)?=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHours:
    """What Slurm has counted for a run."""

    total: float
    """Time of each start, times the GPUs that it had."""
    spans: tuple[tuple[datetime, datetime], ...]
    """Begin and end of each start that was counted."""

    def covers(self, moments: Sequence[datetime]) -> bool:
        """Whether these moments, give or take the clocks, all lie in starts that were counted."""
        return all(
            any(begin - SKEW <= moment <= end + SKEW for begin, end in self.spans)
            for moment in moments
        )


def gpu_hours(folder: RunFolder, timeout_s: float = TIMEOUT_S) -> GpuHours | None:
    """The GPU hours of all submissions of a run; None if it was not submitted, had no GPUs, or if
    the cluster keeps no account of a submission.

    Raises:
        SlurmError: there is no sacct here, or it does not answer.
    """
    total, spans = 0.0, list[tuple[datetime, datetime]]()
    for submission in submissions(folder):
        records = _records(submission, timeout_s)
        if not records:
            return None
        total += sum(gpus * elapsed_s for gpus, elapsed_s, _, _ in records) / 3600
        spans += [(begin, end) for _, _, begin, end in records]
    return GpuHours(total=total, spans=tuple(spans)) if total else None


def _records(
    submission: Submission, timeout_s: float
) -> list[tuple[int, float, datetime, datetime]]:
    """GPUs, seconds, begin and end of each start of a submission.

    A job's number may have been given before, to a job that was submitted earlier; of a requeued
    job, the time of submission is that of the requeue.
    """
    submitted_at = datetime.fromisoformat(submission.submitted_at)
    since = (submitted_at - timedelta(days=1)).astimezone()
    where = []
    if submission.cluster is not None and submission.cluster != cluster_name(timeout_s):
        where = ["--clusters", submission.cluster]
    printed = run(
        *("sacct", *where, "-X", "-D", "-n", "-P", "-j", str(submission.job_id)),
        *("-S", f"{since:%Y-%m-%dT%H:%M:%S}", "-o", ",".join(FIELDS)),
        timeout_s=timeout_s,
    )
    records = []
    for line in printed.splitlines():
        values = line.split("|")
        if len(values) != len(FIELDS):
            continue
        _, submit, start, end, elapsed, num_nodes, tres = values
        begin, submitted = moment(start), moment(submit)
        if begin is None or (submitted is not None and submitted < submitted_at - SKEW):
            continue
        gpus = _gpus(tres, int(num_nodes or 0), submission)
        records.append((gpus, float(elapsed or 0), begin, moment(end) or datetime.now(UTC)))
    return records


def _gpus(tres: str, num_nodes: int, submission: Submission) -> int:
    """The GPUs of a start, as in `cpu=64,gres/gpu:h100=16,gres/gpu=16,node=2`: those without a type
    are all of them. A cluster that does not account for GPUs names none; then the job had those
    that its settings asked for."""
    found = GPUS.findall(tres)
    untyped = [int(count) for kind, count in found if not kind]
    if found:
        return untyped[0] if untyped else sum(int(count) for _, count in found)
    return num_nodes * int(submission.slurm.get("gpus_per_node") or 0)
