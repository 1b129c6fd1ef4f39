"""Kills what a job leaves behind on a node, when it ends or is requeued, as cgroups do.

Without cgroups Slurm finds a job's processes by their parents (proctrack/linuxproc). A worker of
torchrun has a session of its own; if torchrun is killed, it has no parent of the job's either, and
would work on while the job starts again.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path


def main(slurm_conf: str) -> None:
    own = {name: os.environ[name] for name in ("SLURM_JOB_ID", "SLURMD_NODENAME")}
    looked_for = {f"{name}={value}" for name, value in own.items()} | {f"SLURM_CONF={slurm_conf}"}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            environment = (process / "environ").read_text(errors="replace").split("\0")
            if int(process.name) != os.getpid() and looked_for <= set(environment):
                os.kill(int(process.name), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
