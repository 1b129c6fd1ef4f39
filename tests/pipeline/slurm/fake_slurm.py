"""Slurm's commands as scripts that say what they are told to; and records of submissions.

What they say was recorded from Slurm 22.05, or is in the form that newer versions document.
"""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.queue import SEPARATOR
from pipeline.slurm.records import StartRecord, Submission, write_start, write_submission

UNKNOWN_ID = "slurm_load_jobs error: Invalid job id specified\n"
NO_ACCOUNTS = "Slurm accounting storage is disabled\n"


class FakeSlurm:
    """A folder with the commands, alone on PATH: where none is made, none is found."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))

    def says(self, command: str, out: str = "", *, err: str = "", code: int = 0) -> None:
        """Let a command print this and end with this code, whatever its arguments are."""
        (self.folder / f"{command}.out").write_text(out)
        (self.folder / f"{command}.err").write_text(err)
        place = shlex.quote(str(self.folder / command))
        self.runs(
            command,
            f'/usr/bin/printf "%s\\n" "$*" >> {place}.calls\n'
            f"/bin/cat {place}.out\n/bin/cat {place}.err >&2\nexit {code}\n",
        )

    def runs(self, command: str, script: str) -> None:
        """Let a command run this script of sh."""
        file = self.folder / command
        file.write_text(f"#!/bin/sh\n{script}")
        file.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        """The arguments of each call so far."""
        file = self.folder / f"{command}.calls"
        return file.read_text().splitlines() if file.exists() else []


def job(
    job_id: int,
    state: str,
    *,
    element: int | None = None,
    start: str = "N/A",
    end: str = "N/A",
    limit: str = "UNLIMITED",
    nodes: str = "",
    user: str = "me",
    reason: str = "None",
) -> str:
    """A line of squeue."""
    index = "N/A" if element is None else str(element)
    values = [str(job_id), index, state, start, end, limit, nodes, user, reason]
    return SEPARATOR.join(values) + "\n"


def when(seconds: float) -> str:
    """So many seconds from now (ago, if negative), as Slurm writes it for SLURM_TIME_FORMAT."""
    return f"{datetime.now().astimezone() + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S%z}"


def iso(seconds: float) -> str:
    """The same as the records have it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def submitted(run: RunFolder, job_id: int = 1234, **fields: Any) -> Submission:
    """Record a submission of an hour ago."""
    slurm = {"nodes": 1, "gpus_per_node": 8, "signal_s": 120, "requeue": True, "max_requeues": 100}
    values: dict[str, Any] = {
        "job_id": job_id,
        "submitted_at": iso(-3600),
        "submitted_from": "login1",
        "user": "me",
        "command": "python -m jobs.submit conf=demo slurm=h100x8 slurm.nodes=2 output='my run'",
        "working_folder": "/home/me/my work",
        "folder": str(run.slurm),
    }
    submission = Submission(**values | fields | {"slurm": slurm | fields.get("slurm", {})})
    write_submission(run, submission)
    return submission


def started(run: RunFolder, job_id: int = 1234, restart: int = 0, **fields: Any) -> None:
    """Record a start of half an hour ago."""
    values: dict[str, Any] = {"nodes": ["node1"], "began_at": iso(-1800), "parts_before": 0}
    record = StartRecord(job_id=job_id, restart=restart, **values | fields)
    write_start(run, record)
