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
from pipeline.run_folder.at_work import at_work, holder_of
from pipeline.run_folder.layout import RunFolder

log = logging.getLogger("pipeline")

WAIT_S = 20.0
"""How long to wait for the lock. After a launcher is killed, its rank 0 may live on for a moment
and still hold it."""
POLL_S = 0.5


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock inside the `with` block. If another launch holds it, this is said
    at once, and waited for a moment: that launch may be ending.

    Raises:
        UserError: another launch still holds it.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    if isinstance(folder.lock_file, UPath):
        if before := holder_of(folder):
            wait_s = max(lease.WAIT_S, lease.LAPSE_S)
            _say_waiting(folder, before, f"waiting up to {wait_s:g} s to see whether it still is")
        with ExitStack() as stack:
            try:
                stack.enter_context(lease.held(folder.lock_file, holder))
            except lease.Taken as taken:
                raise _refused(folder, str(taken)) from None
            yield
        return
    with folder.lock_file.open("a+") as file:
        if not _acquire(file.fileno(), folder):
            raise _refused(folder, holder_of(folder))
        file.truncate(0)
        file.write(f"{holder}\n")
        file.flush()
        yield


def check_is_unlocked(folder: RunFolder) -> None:
    """Check that no launch is at work in the run folder, without waiting or writing.

    Raises:
        UserError: one is.
    """
    if (now := at_work(folder)).is_held:
        raise _refused(folder, now.holder)


def _refused(folder: RunFolder, holder: str) -> UserError:
    return UserError(
        f"output={folder.path}: another launch works in this run folder "
        f"({holder or 'holder unknown'}); wait for it or stop it, or give another output; "
        f"python -m pipeline.status {folder.path} shows how far it is"
    )


def _say_waiting(folder: RunFolder, holder: str, what: str) -> None:
    print(
        f"pipeline.run: output={folder.path}: another launch works in this run folder "
        f"({holder or 'holder unknown'}); {what}",
        file=sys.stderr,
        flush=True,
    )


def _acquire(descriptor: int, folder: RunFolder) -> bool:
    """Try to lock for WAIT_S. Also true, with a warning, if there are no locks here."""
    deadline, has_said = time.monotonic() + WAIT_S, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_said:
                _say_waiting(folder, holder_of(folder), f"waiting {WAIT_S:g} s for it to end")
                has_said = True
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
