"""The command that started this job, as a line for a shell: a dead run can say how to resume it.

Under torchrun a worker knows its own arguments, but what was typed is the command line of its
launcher, the parent process.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.run_folder.at_work import Launch, absolute
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.store import without_secrets
from pipeline.workers.ranks import Worker

LAUNCHERS = ("torchrun", "torch.distributed.run", "torch.distributed.launch")


def this_launch(worker: Worker, folder: RunFolder) -> Launch:
    """The present launch, as its rank 0 records it in its run folder. The store's keys are not in
    it."""
    return Launch(
        command=without_secrets(command(worker, sys.orig_argv, _parents_argv())),
        working_folder=os.getcwd(),
        host=worker.host,
        pid=os.getpid(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        num_ranks=worker.world,
        run_folder=absolute(folder),
        share=None if folder.share is None else str(folder.share),
    )


def command(worker: Worker, own: Sequence[str], parents: Sequence[str]) -> str:
    """The line for a shell that starts the job again.

    Args:
        own: this process's command line.
        parents: its parent's, or nothing if that cannot be read.
    """
    if worker.under_torchrun:
        args = [word for word in own[1:] if word != "-u"]  # torchrun's own addition
        return shlex.join(_of_launcher(parents) or [*_torchrun(worker), *args])
    if worker.world > 1:
        return shlex.join(["srun", f"--ntasks={worker.world}", *own])
    return shlex.join(own)


def _of_launcher(argv: Sequence[str]) -> list[str]:
    """What was typed to start torchrun; empty if this is not its command line. A script is run as
    INTERPRETER SCRIPT ARGS, but typed as SCRIPT ARGS."""
    for place, word in enumerate(argv[:4]):
        if Path(word).name in LAUNCHERS:
            if place and argv[place - 1] == "-m":
                return list(argv)
            name = Path(word).name
            return [name if shutil.which(name) == word else word, *argv[place + 1 :]]
    return []


def _torchrun(worker: Worker) -> list[str]:
    nodes = worker.world // worker.local_world
    return [
        *("torchrun", f"--nproc-per-node={worker.local_world}"),
        *([f"--nnodes={nodes}"] if nodes > 1 else []),
    ]


def _parents_argv() -> list[str]:
    """The command line of the parent process; empty on a system without /proc."""
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
