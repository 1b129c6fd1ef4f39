"""One launch at a time in a run folder.

Rank 0 holds a lock on run.lock for as long as it lives: the kernel gives it back however it ends,
so nothing is left behind by a kill. Where a file system knows no locks (some network ones), the
log says so and nothing is held. A store knows none either: there run.lock is renewed all the time
(pipeline/run_folder/lease.py).
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

from pipeline.run_folder import lease
from pipeline.run_folder.layout import RunFolder

log = logging.getLogger("pipeline")

WAIT_S = 20.0
"""For workers of a launch that is ending: a killed launcher's workers live on for a moment."""
POLL_S = 0.5


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """
    Raises:
        ValueError: another launch works in this folder.
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
        if not _try(file.fileno(), time.monotonic() + WAIT_S):
            file.seek(0)
            raise _refused(folder, file.read().strip())
        file.truncate(0)
        file.write(f"{holder}\n")
        file.flush()
        yield


def _refused(folder: RunFolder, holder: str) -> ValueError:
    return ValueError(
        f"output={folder.path}: another launch works in this run folder "
        f"({holder or 'it did not say who'}); wait for it or stop it, or give another output"
    )


def _try(descriptor: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S)
        except OSError as error:
            said = f"run.lock: this file system has no locks ({error}); start no second launch here"
            log.warning(said)
            print(f"pipeline.run: {said}", file=sys.stderr, flush=True)
            return True
        else:
            return True
