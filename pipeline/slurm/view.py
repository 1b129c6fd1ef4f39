"""What became of a run's submissions? What they left in the run folder, and what Slurm says now.

The records alone say how a start ended that ended by itself; Slurm alone knows what waits, what
runs, and what was killed. Where Slurm cannot be asked, or has forgotten a job, the records remain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from upath import UPath

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import SlurmError
from pipeline.slurm.queue import Job, ask, cluster_name
from pipeline.slurm.records import StartRecord, Submission, label, starts, submissions

ANSWER_S = 10.0
"""Seconds to wait for Slurm: whoever asks for the status of a run wants to see its files too."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one share of a submission has done: the job, or one element of its array."""

    job_id: int
    element: int | None
    job: Job | None
    """As Slurm sees it; None: it does not know it (any more), or was not asked."""
    starts: list[StartRecord]
    """In order."""

    @property
    def label(self) -> str:
        return label(self.job_id, self.element)

    @property
    def last(self) -> StartRecord | None:
        """Its last start."""
        return self.starts[-1] if self.starts else None

    @property
    def is_live(self) -> bool:
        """Whether it is queued or running, by Slurm's word."""
        return self.job is not None and self.job.is_live


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A submission, its starts and Slurm's view of it."""

    submission: Submission
    jobs: list[Job]
    """All that Slurm knows of it."""
    starts: list[StartRecord]
    """Of its job or elements, and of the job that finishes an array."""
    logs: Path
    """The folder of its logs, as far as this machine sees it."""
    unasked: str | None = None
    """Why Slurm could not be asked; None: it was."""

    @cached_property
    def tasks(self) -> list[Task]:
        """The job, or the elements of the array in order."""
        its = self.submission
        elements: Iterable[int | None] = [None] if its.array is None else range(its.array)
        return [self._task(its.job_id, element) for element in elements]

    @property
    def finisher(self) -> Task | None:
        """The job that finishes the array."""
        finisher_id = self.submission.finisher_id
        return None if finisher_id is None else self._task(finisher_id, None)

    def _task(self, job_id: int, element: int | None) -> Task:
        of = (job_id, element)
        return Task(
            job_id=job_id, element=element, job=self._jobs.get(of), starts=self._starts.get(of, [])
        )

    @cached_property
    def _jobs(self) -> dict[tuple[int, int | None], Job]:
        return {(job.job_id, job.element): job for job in self.jobs}

    @cached_property
    def _starts(self) -> dict[tuple[int, int | None], list[StartRecord]]:
        found: dict[tuple[int, int | None], list[StartRecord]] = {}
        for start in self.starts:
            found.setdefault((start.job_id, start.element), []).append(start)
        return found

    @property
    def is_live(self) -> bool:
        """Whether anything of it is queued or running, by Slurm's word."""
        return any(job.is_live for job in self.jobs)

    def is_over(self, task: Task) -> bool:
        """Whether a job or element is known to run no more: by Slurm's word, which forgets those
        that have ended, or by its last record where Slurm cannot be asked."""
        if task.job is not None or self.unasked is None:
            return not task.is_live
        outcome = None if task.last is None else task.last.outcome
        return outcome not in (None, "requeued") or self.submission.cancelled_at is not None

    @property
    def is_running(self) -> bool:
        """Whether anything of it runs, by Slurm's word."""
        return any(job.is_live and not job.is_waiting for job in self.jobs)

    @property
    def may_go_on(self) -> bool:
        """Whether something of it is queued or running, or may be, as Slurm cannot be asked."""
        return self.is_live or not all(map(self.is_over, self.tasks))


def view(folder: RunFolder) -> list[Submitted]:
    """All submissions of a run, the oldest first. Without submissions, Slurm is not asked."""
    its = submissions(folder)
    jobs, unasked = _asked(its)
    return [
        Submitted(
            submission=one,
            jobs=[job for job in jobs.get(one.cluster, []) if job.is_of(one)],
            starts=[start for job_id in one.ids for start in starts(folder, job_id)],
            logs=_logs(folder, one),
            unasked=unasked.get(one.cluster),
        )
        for one in its
    ]


def _logs(folder: RunFolder, submission: Submission) -> Path:
    """Where its logs were written; of a run folder that was moved, where they are now."""
    written = Path(submission.folder) / "logs"
    if written.is_dir() or isinstance(folder.slurm, UPath):
        return written
    moved = folder.slurm / "logs"
    return moved if moved.is_dir() else written


def _asked(
    its: Sequence[Submission],
) -> tuple[dict[str | None, list[Job]], dict[str | None, str]]:
    """By cluster: what Slurm says of its jobs, or why it cannot be asked."""
    jobs: dict[str | None, list[Job]] = {}
    unasked: dict[str | None, str] = {}
    for cluster in {one.cluster for one in its}:
        ids = [job_id for one in its if one.cluster == cluster for job_id in one.ids]
        try:
            is_here = cluster is None or cluster_name(ANSWER_S) == cluster
            jobs[cluster] = ask(ids, None if is_here else cluster, ANSWER_S)
        except SlurmError as error:
            unasked[cluster] = str(error)
    return jobs, unasked
