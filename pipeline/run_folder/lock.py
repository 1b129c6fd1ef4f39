"""Allow only one launch at a time in a run folder.

Rank 0 holds a lock on run.lock until its process ends. The kernel releases it however the process
ends, so a killed launch leaves nothing behind. If the file system has no locks (some network file
systems), a warning says so and the launch goes ahead without one. An object store has no locks
either: there, rank 0 keeps renewing the object run.lock (pipeline/run_folder/lease.py).
"""

import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from upath import UPath

from engine.errors import UserError
from pipeline.run_folder import lease
from pipeline.run_folder.layout import RunFolder

log = logging.getLogger("pipeline")

WAIT_S = 20.0
"""How long to wait for the lock. After a launcher is killed, its rank 0 may live on for a moment
and still hold it."""
POLL_S = 0.5


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock inside the `with` block.

    Raises:
        UserError: another launch holds it.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    if isinstance(folder.lock_file, UPath):
        with ExitStack() as stack:
            try:
                stack.enter_context(lease.held(folder.lock_file, holder))
            except lease.Taken as taken:
                raise _refused(folder, str(taken)) from None
            yield
        return
    with folder.lock_file.open("a+") as file:
        if not _acquire(file.fileno(), time.monotonic() + WAIT_S):
            file.seek(0)
            raise _refused(folder, file.read().strip())
        file.truncate(0)
        file.write(f"{holder}\n")
        file.flush()
        yield


def _refused(folder: RunFolder, holder: str) -> UserError:
    return UserError(
        f"output={folder.path}: another launch works in this run folder "
        f"({holder or 'holder unknown'}); wait for it or stop it, or give another output"
    )


def _acquire(descriptor: int, deadline: float) -> bool:
    """Try to lock until the deadline. Also true, with a warning, if there are no locks here."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        except OSError as error:
            warning = (
                f"run.lock: this file system has no locks ({error}), so a second launch would go "
                "unnoticed; do not start one in this run folder"
            )
            log.warning(warning)
            print(f"pipeline.run: {warning}", file=sys.stderr, flush=True)
            return True
        else:
            return True
