"""Slurm's commands on PATH that do nothing but note how they were called and answer as told."""

import os
from getpass import getuser
from pathlib import Path

import pytest

from engine.errors import UserError
from jobs.slurm.submission import submit
from pipeline.slurm.queue import SEPARATOR

DEMO = ("conf=demo", "data.limit=4", "slurm=cpu")
COMMANDS = ("sbatch", "scontrol", "squeue", "scancel")
PROGRAM = """#!/bin/sh
name=$(basename "$0")
{ printf '%s' "$name"; printf '\\t%s' "$@"; echo; } >> "$FAKE_SLURM/calls"
env > "$FAKE_SLURM/$name.env"
for word in "$@"; do
    [ "$word" = --test-only ] && name=test-only
done
[ -e "$FAKE_SLURM/$name.refusal" ] && { cat "$FAKE_SLURM/$name.refusal" >&2; exit 1; }
if [ "$name" = sbatch ]; then
    echo x >> "$FAKE_SLURM/ids"
    echo $((100 + $(wc -l < "$FAKE_SLURM/ids")))
fi
[ -e "$FAKE_SLURM/$name.answer" ] && cat "$FAKE_SLURM/$name.answer"
exit 0
"""


class FakeSlurm:
    """The commands in `folder`, first on PATH. The first job has id 101."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        for name in COMMANDS:
            (folder / name).write_text(PROGRAM)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("FAKE_SLURM", str(folder))
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call of a command."""
        file = self._folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        words = [line.split("\t") for line in lines]
        return [its[1:] for its in words if its[0] == name]

    def submitted(self) -> list[list[str]]:
        """The arguments of each sbatch that queues a job."""
        return [its for its in self.calls("sbatch") if "--test-only" not in its]

    def environment(self, name: str) -> list[str]:
        """Of the last call, NAME=VALUE."""
        return (self._folder / f"{name}.env").read_text().splitlines()

    def refuse(self, name: str, text: str) -> None:
        """Let a command fail with this text from now on; `test-only` is sbatch --test-only."""
        (self._folder / f"{name}.refusal").write_text(text)

    def answer(self, name: str, text: str) -> None:
        """Let a command print this from now on."""
        (self._folder / f"{name}.answer").write_text(text)


def submitted(*args: str) -> int:
    return submit(args, ["python", "-m", "jobs.submit", *args])


def refused(*args: str) -> str:
    with pytest.raises(UserError) as error:
        submitted(*args)
    return str(error.value)


def queue(job: int, state: str, node: str = "", reason: str = "None") -> str:
    """A line of squeue."""
    began = "2026-11-27T01:00:00+0000"
    values = [str(job), "N/A", state, began, "N/A", "UNLIMITED", node, getuser(), reason]
    return SEPARATOR.join(values) + "\n"
