"""Submits jobs to Slurm: checks them, writes the batch script, calls sbatch, records it.

    settings   before anything else, and without Slurm
    folder     no job of it is queued or running, and it is free or holds this run
    Slurm      takes the job (sbatch --test-only)
    input      model and input are planned here as the job's first rank will plan them, so that a
               job which could not start is not queued; with slurm.offline the model is fetched
    sbatch     held; then the record; then released. So a job never starts without its record, and
               after a crash in between it is held, and `squeue` shows it

Several jobs are all checked before the first is submitted.
"""

import os
import pwd
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import yaml

from engine.errors import UserError
from jobs.slurm import checks, sbatch
from jobs.slurm.alive import alive_of, in_words
from jobs.slurm.environment import keys_left_behind
from jobs.slurm.job import Job, job_of, working_folder
from pipeline.config.job import as_dict
from pipeline.launch.to_submit import to_submit
from pipeline.plan.run_json import existing_plan
from pipeline.run_folder.at_work import absolute
from pipeline.run_folder.lock import locked
from pipeline.run_folder.store import is_stored, without_secrets
from pipeline.slurm.commands import SlurmError, cancel
from pipeline.slurm.records import Submission, mark_cancelled, write_submission
from pipeline.stats.versions import git_revision


class AtWork(UserError):
    """A job of this run is queued or running."""


def submit(argv: Sequence[str], typed: Sequence[str]) -> int:
    """Submit the jobs of a command line, or print their scripts; returns the exit code.

    Args:
        argv: the words after `python -m jobs.submit`.
        typed: the whole command.

    Raises:
        UserError: a setting, file, folder or Slurm does not allow it. If there are several jobs and
            Slurm refuses a later one, the earlier ones are submitted, and printed.
    """
    jobs = [job_of(its, without_secrets(shlex.join(typed))) for its in to_submit(argv)]
    for job in jobs:
        checks.check_settings(job.its.config, job.its.slurm, job.its.arguments)
    to_print = [job for job in jobs if job.its.slurm.dry_run]
    for job in to_print:
        print_scripts(job)
    waiting = [job for job in jobs if not job.its.slurm.dry_run]
    if not waiting:
        return 0
    sbatch.check_there()
    ready = [job for job in waiting if is_to_submit(job, is_alone=len(jobs) == 1)]
    for job in ready:
        check_with_slurm(job)
    for job in [job for job in ready if check_input(job)]:
        print("\n".join(printed(job, submit_one(job))), flush=True)
    return 0


def print_scripts(job: Job) -> None:
    """Print the batch script, and that of the job that finishes an array."""
    print(job.script(job.options), flush=True)
    if job.its.slurm.array is not None:
        print(job.script(job.finisher_options("ARRAY"), is_finisher=True), flush=True)


def is_to_submit(job: Job, is_alone: bool) -> bool:
    """Look at the run folder. A job that is at work is an error if it is the only one; of several
    it is named and left alone.

    Raises:
        UserError: the folder cannot be used, or its job is at work.
    """
    try:
        check_nothing_is_at_work(job)
    except AtWork as error:
        if is_alone:
            raise
        say(str(error))
        return False
    checks.check_folder(job.folder)
    return True


def check_nothing_is_at_work(job: Job) -> None:
    """
    Raises:
        AtWork: a job of this run is queued or running.
        SlurmError: Slurm does not tell.
    """
    for submission, jobs in alive_of(job.folder):
        more = f" (and {len(jobs) - 1} more of it)" if len(jobs) > 1 else ""
        raise AtWork(
            f"output={job.folder.path}: {in_words(jobs[0])}{more}, submitted "
            f"{submission.submitted_at} by {submission.user}; python -m pipeline.status "
            f"{job.shown} shows how far it is, python -m jobs.cancel {job.shown} ends it"
        )


def check_with_slurm(job: Job) -> None:
    """
    Raises:
        SlurmError: Slurm would not take the job.
    """
    if job.its.note:
        say(job.its.note)
    places = [job.place]
    if not is_stored(run := absolute(job.folder)) and not job.place.is_relative_to(run):
        places.append(Path(run))
    for note in dict.fromkeys(checks.node_local(place) for place in places):
        if note:
            say(note)
    if note := keys_left_behind(job.its.config, job.its.slurm):
        say(note)
    sbatch.check_accepted(job.options, job.script(job.options), job.its.slurm)


def check_input(job: Job) -> bool:
    """Plan the job as its first rank will, and fetch the model if the nodes cannot. Whether
    something is left to do; if not, that is said.

    Raises:
        UserError: the model or the input does not allow the job, or the folder holds another run.
    """
    from pipeline.run import make_plan_of  # loads what generates text: not for a wrong setting

    config, slurm = job.its.config, job.its.slurm
    with_weights = slurm.offline or Path(config.model.path).is_dir()
    plan = make_plan_of(config, job.folder, checks.worker_of(slurm), with_weights)
    checks.check_plan(existing_plan(job.folder), plan, job.folder)
    if checks.is_finished(config, job.folder):
        say(f"{job.folder.path}: is finished, nothing to submit")
        return False
    return True


def submit_one(job: Job) -> Submission:
    """Write the script, submit the job and record it; returns the record.

    Raises:
        AtWork: another command has submitted it meanwhile.
        SlurmError: Slurm refuses the job. Nothing is left queued.
    """
    job.folder.make_slurm()
    (job.place / "logs").mkdir(parents=True, exist_ok=True)
    with ExitStack() as unless_released, locked(job.folder):
        check_nothing_is_at_work(job)
        file = write_script(job, job.script(job.options))
        submitted = sbatch.submit_held(job.options, file, job.its.slurm)
        unless_released.callback(cancel, [submitted.job_id])
        finisher_id = _submit_finisher(job, submitted)
        if finisher_id is not None:
            unless_released.callback(cancel, [finisher_id])
        submission = record(job, submitted, finisher_id)
        unless_released.callback(mark_cancelled, job.folder, submission)
        sbatch.release(submission.job_id, job.its.slurm)
        unless_released.pop_all()
    return submission


def write_script(job: Job, text: str, suffix: str = "") -> Path:
    """Write a batch script under a name that no other has, with the composed job beside it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    file = job.place / f"{job.name}-{stamp}{suffix}.sh"
    file.write_text(text, errors="surrogateescape")
    if not suffix:
        config = yaml.safe_dump(as_dict(job.its.config), sort_keys=False, allow_unicode=True)
        file.with_suffix(".yaml").write_text(without_secrets(config))
    return file


def record(job: Job, submitted: sbatch.Submitted, finisher_id: int | None) -> Submission:
    """Write the record of a submission; returns it."""
    submission = Submission(
        job_id=submitted.job_id,
        cluster=submitted.cluster,
        array=job.its.slurm.array,
        finisher_id=finisher_id,
        submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        submitted_from=socket.gethostname(),
        user=_user(),
        command=job.typed,
        working_folder=str(working_folder()),
        folder=str(job.place),
        git_revision=git_revision(),
        slurm=asdict(job.its.slurm),
        task=job.its.config.task,
    )
    write_submission(job.folder, submission)
    return submission


def printed(job: Job, submission: Submission) -> list[str]:
    """What a person reads after submitting."""
    slurm, run = job.its.slurm, job.shown
    gpus = f" x {slurm.gpus_per_node} GPUs" if slurm.gpus_per_node else ""
    size = f"{slurm.nodes} node{'s' if slurm.nodes > 1 else ''}{gpus}"
    array = "" if slurm.array is None else f", {slurm.array} elements"
    behind = "" if submission.finisher_id is None else f"; then job {submission.finisher_id}"
    return [
        f"{job.name}: job {submission.job_id}{array}, {size}{behind}",
        f"  watch   python -m pipeline.status {run}",
        f"  logs    {job.place / 'logs' / str(submission.job_id)}*.log",
        f"  cancel  python -m jobs.cancel {run}",
    ]


def _user() -> str:
    """This user's name as Slurm has it, whatever LOGNAME and USER say after `su` or `sudo`."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # squeue, too, then shows the number
        return str(os.getuid())


def say(text: str) -> None:
    print(f"jobs.submit: {text}", file=sys.stderr, flush=True)


def _submit_finisher(job: Job, array: sbatch.Submitted) -> int | None:
    """The id of the job that finishes an array. None if there is no array, or if Slurm takes no
    such job, which is said: the array is worth running all the same."""
    if job.its.slurm.array is None:
        return None
    options = job.finisher_options(str(array.job_id))
    file = write_script(job, job.script(options, is_finisher=True), "-finish")
    try:
        return sbatch.submit_behind(options, file, job.its.slurm).job_id
    except SlurmError as error:
        say(
            f"the small job that finishes an array was refused ({error}); when all elements have "
            "ended, python -m pipeline.run with the job's arguments writes the summary"
        )
        return None
