"""Which start of which job is this process in, and what do its records say?"""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import UserError
from jobs.slurm.outcome import JobNow, Verdict
from pipeline.config.slurm import SlurmConfig, slurm_config
from pipeline.plan.run_json import load
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import commands, records
from pipeline.slurm.commands import SlurmError
from pipeline.slurm.records import StartRecord, Submission

SCORING = "scoring"
"""What a start's record says, as its `why`, while all parts are done and are being scored."""
RECORD_S = 60.0
"""Seconds to wait for the record of the submission, which another machine has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisStart:
    """One start of a job, of an element of an array, or of the job that finishes an array."""

    folder: RunFolder
    submission: Submission
    config: SlurmConfig
    job_id: int
    """As Slurm knows it by itself: the submission's, or its finisher's."""
    element: int | None
    restart: int
    nodes: list[str]

    @property
    def label(self) -> str:
        """The job or element, as Slurm's commands take it. (The id that an element has besides is,
        for one of them, the id of the whole array.)"""
        return records.label(self.job_id, self.element)

    @property
    def name(self) -> str:
        """The start, as in the names of its files."""
        return f"{self.label}-{self.restart}"

    @property
    def place(self) -> Path:
        """Where script, logs and what the nodes write to each other are."""
        return Path(self.submission.folder)

    @property
    def log_file(self) -> Path:
        return self.place / "logs" / f"{self.label}.log"

    def log(self) -> str:
        """What this job has printed, in all its starts."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def parts_done(self) -> int:
        """The parts that are done, of those that are this job's or element's; 0 before there is a
        plan."""
        if not exists(self.folder.plan_file):
            return 0
        return sum(map(self._is_own, self.folder.parts_done()))

    def parts_planned(self) -> int | None:
        """The parts that are this job's or element's; None before that is decided."""
        if not exists(self.folder.plan_file):
            return None
        plan = load(self.folder)
        return sum(map(self._is_own, range(len(plan.parts)))) if plan.is_final else None

    def is_cancelled(self) -> bool:
        """Whether `python -m jobs.cancel` was called, by now."""
        latest = _submission(self.folder, self.job_id)
        return latest is not None and latest.cancelled_at is not None

    def earlier(self) -> list[StartRecord]:
        """The starts of this job or element before this one, oldest first."""
        found = records.starts(self.folder, self.job_id)
        return [its for its in found if its.element == self.element and its.restart < self.restart]

    def begin(self, parts_before: int) -> StartRecord:
        """Record that this start has begun."""
        record = StartRecord(
            job_id=self.job_id,
            element=self.element,
            restart=self.restart,
            nodes=self.nodes,
            began_at=_now(),
            parts_before=parts_before,
        )
        records.write_start(self.folder, record)
        return record

    def scoring(self, begun: StartRecord) -> None:
        """Record that all parts are done and are being scored."""
        parts_after = self.parts_done()
        records.write_start(self.folder, replace(begun, parts_after=parts_after, why=SCORING))

    def end(self, begun: StartRecord, parts_after: int, verdict: Verdict) -> None:
        """Record how this start has ended."""
        ended = replace(
            begun,
            ended_at=_now(),
            parts_after=parts_after,
            outcome=verdict.outcome,
            why=verdict.why,
        )
        records.write_start(self.folder, ended)

    def _is_own(self, part: int) -> bool:
        return self.element is None or part % self.num_elements == self.element

    @property
    def num_elements(self) -> int:
        assert self.submission.array is not None, "an element of no array"
        return self.submission.array


def this_start(folder: RunFolder, env: Mapping[str, str] = os.environ) -> ThisStart:
    """The start that this process is in.

    Raises:
        UserError: the run folder has no record of the job, or this is no job of Slurm's.
    """
    try:
        job_id = int(env.get("SLURM_ARRAY_JOB_ID") or env["SLURM_JOB_ID"])
    except KeyError:
        raise UserError(
            "jobs.slurm.supervise: this is no job of Slurm's; submit one with "
            "`python -m jobs.submit`"
        ) from None
    submission = _waited_for(folder, job_id)
    return ThisStart(
        folder=folder,
        submission=submission,
        config=slurm_config(submission.slurm),
        job_id=job_id,
        element=int(env["SLURM_ARRAY_TASK_ID"]) if "SLURM_ARRAY_JOB_ID" in env else None,
        restart=int(env.get("SLURM_RESTART_COUNT") or 0),
        nodes=commands.run("scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]).split(),
    )


@contextmanager
def shielded() -> Iterator[None]:
    """Inside, signals wait, also those to a command that is run: when Slurm ends a job, even at
    this job's own request, it sends SIGTERM to all its processes, the command among them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def job_now(label: str) -> JobNow | None:
    """What Slurm says of a running job or element; None if it does not answer, which is said."""
    try:
        with shielded():
            said = commands.run("scontrol", "--oneliner", "show", "job", label)
    except SlurmError as error:
        print(f"jobs.slurm: {error}", flush=True)
        return None
    return JobNow(
        state=_field(said, "JobState"),
        reason=_field(said, "Reason"),
        restarts=int(_field(said, "Restarts")),
        is_preempted=_field(said, "PreemptTime") not in ("", "None"),
    )


def nodes_down(nodes: Sequence[str]) -> list[str]:
    """Those of these nodes that Slurm has given up; none if it does not answer."""
    try:
        with shielded():
            said = commands.run("sinfo", "-h", "-N", "-n", ",".join(nodes), "-o", "%N %t")
    except SlurmError:
        return []
    states = (line.split() for line in said.splitlines())
    return sorted({name for name, state in states if state.startswith(("down", "fail"))})


def _field(said: str, name: str) -> str:
    """A field of `scontrol show job`; empty if it is not there. The first is Slurm's own: what a
    user has written may follow later."""
    match = re.search(rf"\s{name}=(\S*)", said)
    return match[1] if match else ""


def _submission(folder: RunFolder, job_id: int) -> Submission | None:
    return next((its for its in records.submissions(folder) if job_id in its.ids), None)


def _waited_for(folder: RunFolder, job_id: int) -> Submission:
    """
    Raises:
        UserError: the record does not come.
    """
    end = time.monotonic() + RECORD_S
    while (found := _submission(folder, job_id)) is None:
        if time.monotonic() > end:
            raise UserError(
                f"{folder.slurm}: has no record of job {job_id}; submit it again with "
                "`python -m jobs.submit`"
            )
        time.sleep(1.0)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
