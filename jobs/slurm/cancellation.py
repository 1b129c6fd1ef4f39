"""Ends the jobs of a run for good: no start of them queues itself again.

The record says so before Slurm is told: the supervisor looks there before it queues a job again. A
supervisor that has looked just before may still do it, so Slurm is asked until nothing is left.
"""

import shlex
import time
from collections.abc import Iterator

from engine.errors import UserError
from jobs.slurm.alive import alive_of, in_words
from pipeline.plan.run_json import existing_plan
from pipeline.run_folder.at_work import absolute
from pipeline.run_folder.files import exists
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.commands import cancel
from pipeline.slurm.queue import Job
from pipeline.slurm.records import Submission, mark_cancelled, submissions

NUM_NAMED = 10
"""At most so many jobs and elements are named."""
WAIT_S, POLL_S = 60.0, 1.0
"""How long workers may take to end. Slurm kills them after KillWait, 30 s unless a site says
otherwise."""


def cancel_run(run: str) -> int:
    """Cancel all jobs of a run that are queued or running; returns the exit code.

    Raises:
        UserError: there is no such run, or it was not submitted to Slurm.
        SlurmError: Slurm does not answer or refuses.
    """
    folder = RunFolder(run)
    check_was_submitted(folder)
    found = alive_of(folder)
    if not found:
        print(f"{run}: no job of it is queued or running", flush=True)
        return 1
    for submission, _ in found:
        mark_cancelled(folder, submission)
    for submission, _ in found:
        cancel(submission.ids)
    told = [f"cancelled: {in_words(job)}" for _, jobs in found for job in jobs]
    more = [f"and {len(told) - NUM_NAMED} more"] if len(told) > NUM_NAMED else []
    print("\n".join([*told[:NUM_NAMED], *more]), flush=True)
    left = wait_until_ended(folder)
    print("\n".join(how_to_go_on(folder, found[-1][0], left)), flush=True)
    return 0


def check_was_submitted(folder: RunFolder) -> None:
    """
    Raises:
        UserError: there is no such run, or it was not submitted to Slurm.
    """
    if submissions(folder):
        return
    if exists(folder.plan_file):
        raise UserError(
            f"{folder.path}: this run was not submitted with jobs.submit; python -m "
            f"pipeline.status {folder.path} says who is at work on it"
        )
    raise UserError(f"{folder.path}: is no run folder; give the job's output")


def wait_until_ended(folder: RunFolder) -> list[Job]:
    """Wait until Slurm has none of the run's jobs any more, cancelling again what a supervisor has
    queued meanwhile. Returns those that are still there after WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while found := alive_of(folder):
        left = [its for _, jobs in found for its in jobs]
        if time.monotonic() > deadline:
            return left
        for submission, jobs in found:
            if any(its.state != "COMPLETING" for its in jobs):
                cancel(submission.ids)
        time.sleep(POLL_S)
    return []


def how_to_go_on(folder: RunFolder, submission: Submission, left: list[Job]) -> Iterator[str]:
    """What a person reads at the end."""
    for job in left[:NUM_NAMED]:
        yield f"still ending: {in_words(job)}"
    plan = existing_plan(folder)
    if plan is None:
        yield "no part was done: the run had not been planned yet"
    else:
        yield f"{len(folder.parts_done())} of {len(plan.parts)} parts are done, and kept"
    yield f"to go on: cd {shlex.quote(submission.working_folder)} && {submission.command}"
    yield f"run folder: {absolute(folder)}"
