"""Keeps the processes of a cluster: `python -m tests.slurm.keeper FOLDER`, its input on a pipe.

Each line on stdin is a command (a JSON list) to start. At the end of stdin, which comes too when
the process that wrote there dies, everything is killed that was ever started from here: the keeper
takes in what its descendants leave behind, so no session, fork or lost parent lets one escape. Then
the folder is removed.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def descendants(pid: int) -> list[int]:
    """The processes below this one, parents before children; some may be gone already."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = [int(child) for child in task.read_text().split()]
                found += children
                waiting += children
    return found


def kill_descendants() -> None:
    """Return when no process is left below this one."""
    while alive := descendants(os.getpid()):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.01)


def reap() -> None:
    """Take the exit codes of the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # What has ended is taken in at once, so that nobody takes it for alive.
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    try:
        for line in sys.stdin:
            subprocess.Popen(
                json.loads(line),
                stdin=subprocess.DEVNULL,
                # A daemon dies with the keeper even if the keeper is killed.
                preexec_fn=_as_a_daemon,
            )
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kill_descendants()
        shutil.rmtree(sys.argv[1])


def _as_a_daemon() -> None:
    for default in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(default, signal.SIG_DFL)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
