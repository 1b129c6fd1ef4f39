"""The batch script of a submission: bash, short, to be read by a person.

It only gets to the place where the job runs, and becomes the supervisor (jobs/slurm/supervise.py):
`exec` makes that the process which gets the signals that Slurm sends to the batch script.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.slurm.options import Option

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ESCAPES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t", "\r": r"\r"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a batch script says."""

    options: Sequence[Option]
    run: str
    """The run folder: an absolute path, or an address on a store."""
    folders: Sequence[Path]
    """Folders that every node must see."""
    working_folder: Path
    setup: Sequence[str]
    python: str
    arguments: Sequence[str]
    """Of pipeline.run."""
    is_finisher: bool
    origin: Sequence[str]
    """Who wrote the script, when, from which command: lines of a comment."""

    @property
    def text(self) -> str:
        # A login shell where there are setup lines: `module` is a function that profiles define.
        lines = ["#!/bin/bash -l" if self.setup else "#!/bin/bash"]
        lines += [option.line for option in self.options]
        # Not -u: module files and the activate scripts of environments read unset variables.
        lines += ["set -eo pipefail"]
        # Sent before the time limit, or a preemption: it would end this shell, and the job with it.
        lines += ["trap '' USR1  # the supervisor listens to it", ""]
        lines += [f"# {line}" for line in self.origin]
        seen = " ".join(map(quoted, dict.fromkeys(map(str, [*self.folders, self.working_folder]))))
        lines += [
            "",
            f"for folder in {seen}; do",
            '    if ! [ -d "$folder" ]; then',
            '        echo "jobs.submit: $(hostname) does not see $folder: give output= on a disk'
            ' that all nodes share, and submit from a folder on one" >&2',
            "        exit 1",
            "    fi",
            "done",
            *self._setup_lines(),
            f"cd {quoted(str(self.working_folder))}",
            "export SLURM_EXPORT_ENV=ALL  # srun passes on what this script has",
        ]
        finish = " --finish" if self.is_finisher else ""
        start = f"exec {quoted(self.python)} -m jobs.slurm.supervise {quoted(self.run)}{finish} --"
        return "\n".join([*lines, " \\\n    ".join([start, *map(quoted, self.arguments)]), ""])

    def _setup_lines(self) -> list[str]:
        """The user's lines. One that fails ends the job; many say nothing when they fail."""
        if not self.setup:
            return []
        said = "jobs.submit: slurm.setup ended with exit code $? on $(hostname), at:"
        return [f"trap 'echo \"{said} $BASH_COMMAND\" >&2' EXIT", *self.setup, "trap - EXIT"]


def quoted(word: str) -> str:
    """The word such that bash reads it exactly, on one line whatever it holds."""
    if not CONTROL.search(word):
        return shlex.quote(word)
    text = re.sub(r"[\\'\x00-\x1f\x7f]", lambda its: _escape(its[0]), word)
    return f"$'{text}'"


def _escape(sign: str) -> str:
    return ESCAPES.get(sign, f"\\{ord(sign):03o}")
