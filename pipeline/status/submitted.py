"""The submissions of a run, asked for again from time to time: what is said of them, what resumes
the run, and what the status of a run is that waits for its first start and has no plan yet."""

import time
from dataclasses import replace
from datetime import datetime

from pipeline.run_folder.at_work import Launch
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.accounting import GpuHours, gpu_hours
from pipeline.slurm.commands import SlurmError
from pipeline.slurm.view import ANSWER_S, Submitted, view
from pipeline.stats.formatting import number
from pipeline.status.arrays import array_lines
from pipeline.status.slurm_lines import Left, Lines, job_lines, shown

ASK_S = 30.0
"""Seconds between two questions to Slurm: --watch must be no burden to its controller."""


class Submissions:
    """What Slurm does with a run. Without submissions, nothing is asked and nothing said."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._views: list[Submitted] = []
        self._hours: GpuHours | None = None
        self._asked_at = float("-inf")

    def update(self) -> None:
        """Read the records and ask Slurm again, if the last time was long enough ago."""
        if time.monotonic() - self._asked_at >= ASK_S:
            self._views = view(self._folder)
            # Whoever has waited for one command of Slurm's in vain need not wait for another.
            is_here = self._views and not any(its.unasked for its in self._views)
            self._hours = _hours(self._folder) if is_here else None
            self._asked_at = time.monotonic()

    def __bool__(self) -> bool:
        return bool(self._views)

    @property
    def is_live(self) -> bool:
        """Whether a job of this run is queued or running, by Slurm's word."""
        return any(its.is_live for its in self._views)

    @property
    def is_running(self) -> bool:
        """Whether one is running, by Slurm's word."""
        return any(its.is_running for its in self._views)

    @property
    def may_go_on(self) -> bool:
        """Whether one is, or may be, as Slurm cannot be asked here."""
        return any(its.may_go_on for its in self._views[-1:]) or self.is_live

    def lines(self, left: Left) -> Lines:
        """The lines of the submissions that are queued or running, or else of the last one."""
        now = shown(self._views)
        for its in now:
            lines = job_lines if its.submission.array is None else array_lines
            yield from lines(its, self._folder, left)
        before = [str(its.submission.job_id) for its in self._views if its not in now]
        if before:
            yield "before", f"jobs {', '.join(before[-10:])}"

    def hours_line(self, num_tokens: int) -> Lines:
        """GPU hours, and tokens per GPU hour; no line if they are not known."""
        if self._hours is not None and self._hours.total:
            rate = number(num_tokens / self._hours.total)
            total = number(self._hours.total)
            yield "GPU hours", f"{total} by Slurm's accounting, {rate} tokens per GPU hour"

    def resume(self, launch: Launch | None) -> Launch | None:
        """The launch whose command resumes the run: the last one, or the last submission if that
        came later and has not begun yet."""
        if not self._views:
            return launch
        its = self._views[-1].submission
        at = datetime.fromisoformat
        if launch is not None and at(launch.started_at) >= at(its.submitted_at):
            return launch
        typed = Launch(
            command=its.command,
            working_folder=its.working_folder,
            host=its.submitted_from,
            pid=0,
            started_at=its.submitted_at,
            num_ranks=0,
        )
        return typed if launch is None else replace(typed, run_folder=launch.run_folder)


def _hours(folder: RunFolder) -> GpuHours | None:
    """None if Slurm's accounting does not answer now."""
    try:
        return gpu_hours(folder, ANSWER_S)
    except SlurmError:
        return None


class Planless:
    """The status of a run that was submitted and has no plan yet: its first start makes it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._submitted = Submissions(folder)
        self._submitted.update()

    @property
    def is_submitted(self) -> bool:
        return bool(self._submitted)

    @property
    def is_planned(self) -> bool:
        """Whether there is a plan by now."""
        return exists(self._folder.plan_file)

    def update(self) -> bool:
        """Ask again; whether all parts are done."""
        self._submitted.update()
        return False

    def is_abandoned(self) -> bool:
        return not self._submitted.may_go_on

    def lines(self) -> list[str]:
        """The overview."""
        told = [
            ("run", f"{self._folder.path}, submitted and not planned yet"),
            *self._submitted.lines(Left(parts=None, seconds=None)),
        ]
        launch = self._submitted.resume(None)
        if launch is not None and not self._submitted.is_live:
            told.append(("resume", launch.resume_in(self._folder)))
        return [f"{name:<12}{value}" for name, value in told]

    def failed_lines(self) -> list[str]:
        """The list of --failed."""
        return ["no row has been generated yet"]
