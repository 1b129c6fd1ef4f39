"""One job on its way to Slurm: its names, its folder, its options, its script."""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from engine import __version__
from jobs.slurm.environment import exported
from jobs.slurm.options import Option, finisher_options, job_name, job_options
from jobs.slurm.script import Script, quoted
from pipeline.launch.to_submit import Submittable
from pipeline.run_folder.at_work import absolute
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import is_stored
from pipeline.stats.versions import git_revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job on its way to Slurm."""

    its: Submittable
    folder: RunFolder
    place: Path
    """Where script and logs lie: an absolute path on a disk."""
    name: str
    """In Slurm."""
    exported: list[str]
    """Names of the variables that it gets."""
    typed: str
    """The command, as a line for a shell, without secrets."""

    @property
    def options(self) -> list[Option]:
        return job_options(self.its.slurm, self.name, self.place / "logs", self.exported)

    def script(self, options: Sequence[Option], is_finisher: bool = False) -> str:
        """The batch script."""
        slurm, output = self.its.slurm, absolute(self.folder)
        is_inside = slurm.container is not None  # the supervisor runs outside
        run = [] if is_stored(output) else [Path(output)]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        revision = f", git {rev}" if (rev := git_revision()) else ""
        return Script(
            options=options,
            run=output,
            folders=[*run, self.place],
            working_folder=working_folder(),
            setup=slurm.setup or [],
            python=sys.executable if is_inside else slurm.python or sys.executable,
            arguments=self.its.arguments,
            is_finisher=is_finisher,
            origin=[
                f"dllm-pipeline {__version__}{revision}, on {socket.gethostname()}, {now}:",
                _on_one_line(self.typed),
            ],
        ).text

    @property
    def shown(self) -> str:
        """The run folder as a word for a shell."""
        return shlex.quote(str(self.folder.path))

    def finisher_options(self, array_id: str) -> list[Option]:
        """Of the job that finishes an array."""
        logs = self.place / "logs"
        return finisher_options(self.its.slurm, self.name, logs, self.exported, array_id)


def job_of(its: Submittable, typed: str) -> Job:
    """
    Raises:
        UserError: slurm.env names a variable that is not set.
    """
    folder = RunFolder(its.config.output)
    own = None if its.slurm.folder is None else Path(its.slurm.folder).expanduser().absolute()
    slurm = its.slurm if own is None else replace(its.slurm, folder=str(own))
    return Job(
        its=replace(its, slurm=slurm),
        folder=folder,
        place=own or Path(absolute(folder)) / "slurm",
        name=job_name(its.config.name, folder.path.name),
        exported=exported(its.slurm),
        typed=typed,
    )


def working_folder() -> Path:
    """The folder where the command was typed, by the name that the shell has for it: a path behind
    an automounter's may be another on the nodes."""
    shells = os.environ.get("PWD", "")
    is_same = os.path.isabs(shells) and os.path.isdir(shells) and os.path.samefile(shells, ".")
    return Path(shells if is_same else os.getcwd())


def _on_one_line(command: str) -> str:
    """`cd FOLDER && COMMAND` without line breaks, which would end the comment."""
    words = " ".join(map(quoted, shlex.split(command)))
    return f"cd {quoted(str(working_folder()))} && {words}"
