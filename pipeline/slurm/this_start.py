"""Is this process part of a job that was submitted to Slurm, and what does it leave for the job's
supervisor (jobs/slurm/)? The supervisor sets two variables for its workers:

    PIPELINE_SUBMISSION      JOB-RESTART or JOB_ELEMENT-RESTART, as 1234-0 or 1234_3-0
    PIPELINE_SUBMISSION_RUN  the run folder, for a worker that stops before it knows its config
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from engine.errors import UserError
from pipeline.run_folder.at_work import Launch
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import without_secrets
from pipeline.slurm.records import Stopped, submissions, write_stopped

START, RUN = "PIPELINE_SUBMISSION", "PIPELINE_SUBMISSION_RUN"
FORM = re.compile(r"(\d+)(?:_(\d+))?-(\d+)")
Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ThisStart:
    job_id: int
    element: int | None
    restart: int


def this_start(env: Environment = os.environ) -> ThisStart | None:
    """The start of a submitted job that this process belongs to; None if there is none."""
    match = FORM.fullmatch(env.get(START, ""))
    if match is None:
        return None
    return ThisStart(int(match[1]), None if match[2] is None else int(match[2]), int(match[3]))


def as_submitted(launch: Launch, folder: RunFolder, env: Environment = os.environ) -> Launch:
    """This launch with the command that a user typed to submit it, where and as it was typed: that
    is what resumes the run. Unchanged if it was not submitted, or its submission left no record."""
    if (start := this_start(env)) is None:
        return launch
    for submission in submissions(folder):
        if submission.job_id == start.job_id:
            command = without_secrets(submission.command)
            return replace(
                launch, command=command, working_folder=submission.working_folder, share=None
            )
    return launch


def record_stopped(
    message: str,
    rank: int,
    *,
    is_final: bool,
    folder: RunFolder | None = None,
    env: Environment = os.environ,
) -> None:
    """Leave a rank's last message for the supervisor of this start, if there is one. If it cannot
    be written, stderr says so: the supervisor then knows only the exit code."""
    start, run = this_start(env), env.get(RUN)
    if start is None or (folder is None and run is None):
        return
    said = Stopped(
        rank=rank,
        host=socket.gethostname(),
        message=without_secrets(message),
        is_final=is_final,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    try:
        where = RunFolder(run) if folder is None else folder  # type: ignore[arg-type]
        write_stopped(where, start.job_id, start.element, start.restart, said)
    except (OSError, UserError) as error:
        print(
            f"pipeline.run: the message was not recorded for Slurm ({without_secrets(str(error))})",
            file=sys.stderr,
            flush=True,
        )
