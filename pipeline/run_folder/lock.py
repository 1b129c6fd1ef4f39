"""Allow only one launch at a time in a run folder, or several with a share of the parts each.

    launch          run.lock     shares/share-I-of-N.lock
    of all parts    for itself
    of share I/N    shared       for itself

Rank 0 holds its locks until its process ends. The kernel releases them however the process ends, so
a killed launch leaves nothing behind. If the file system has no locks (some network file systems),
a warning says so and the launch goes ahead without them.

An object store has no locks: there, rank 0 keeps renewing an object, run.lock or that of its share
(pipeline/run_folder/lease.py). Then it looks for leases of the other kind. Of two launches that may
not be at work together, the later one to look finds the other's lease; if both find one, both end.
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
from pathlib import Path
from typing import IO

from upath import UPath

from engine.errors import UserError
from pipeline.run_folder import lease
from pipeline.run_folder.at_work import at_work, described, holder_of, shares_at_work
from pipeline.run_folder.files import Place, names
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.share import Share

log = logging.getLogger("pipeline")

WAIT_S = 20.0
"""How long to wait for the lock. After a launcher is killed, its rank 0 may live on for a moment
and still hold it."""
POLL_S = 0.5


class InUse(UserError):
    """Another launch works in the run folder. It may have ended by the next start: where a machine
    is lost, a file system keeps its locks for a while."""


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock, or that of this launch's share, inside the `with` block. If
    another launch is in the way, this is said at once, and waited for a moment: that launch may be
    ending.

    Raises:
        InUse: another launch is still there.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    with ExitStack() as held:
        if isinstance(folder.path, UPath):
            _take_leases(folder, holder, held)
        else:
            _take_locks(folder, holder, held)
        yield


def check_is_unlocked(folder: RunFolder) -> None:
    """Check that no launch is at work in the run folder that locks this one out, without waiting or
    writing.

    Raises:
        InUse: one is.
    """
    now = at_work(folder)
    if folder.share is None or not now.shares:
        if now.is_held:
            raise _refused(folder, now.holder)
    elif str(folder.share) in now.shares:
        raise _refused(folder, _in_the_way(folder, own_lock(folder)))


def own_lock(folder: RunFolder) -> Place:
    """The lock that only this launch may hold."""
    return folder.lock_file if folder.share is None else folder.share_lock_file(folder.share)


def _take_locks(folder: RunFolder, holder: str, held: ExitStack) -> None:
    whole, own = folder.lock_file, own_lock(folder)
    assert isinstance(whole, Path), f"{whole}: locks are on disks"
    assert isinstance(own, Path), f"{own}: locks are on disks"
    if own != whole:
        shared = held.enter_context(whole.open("a+"))
        _acquire(shared, fcntl.LOCK_SH, folder)
        shared.truncate(0)  # it names a launch that has ended
        own.parent.mkdir(exist_ok=True)
    file = held.enter_context(own.open("a+"))
    _acquire(file, fcntl.LOCK_EX, folder)
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


def _acquire(file: IO[str], kind: int, folder: RunFolder) -> None:
    """Try to lock for WAIT_S. Where there are no locks, a warning says so.

    Raises:
        InUse: another launch holds the lock.
    """
    deadline, has_said = time.monotonic() + WAIT_S, False
    while True:
        try:
            fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)
        except BlockingIOError:
            there = _in_the_way(folder, Path(file.name))
            if time.monotonic() > deadline:
                raise _refused(folder, there) from None
            if not has_said:
                _say_waiting(folder, there, f"waiting {WAIT_S:g} s for it to end")
                has_said = True
            time.sleep(POLL_S)
        except OSError as error:
            warning = (
                f"{Path(file.name).name}: this file system has no locks ({error}), so a second "
                "launch would go unnoticed; do not start one in this run folder"
            )
            if folder.share is not None:
                warning += f" with share={folder.share}, nor one without a share"
            log.warning(warning)
            print(f"pipeline.run: {warning}", file=sys.stderr, flush=True)
            return
        else:
            return


def _in_the_way(folder: RunFolder, lock: Place) -> str:
    """Who holds this lock that is to be taken."""
    if lock == folder.lock_file:
        shares = shares_at_work(folder) if folder.share is None else {}
        return described(shares) or holder_of(lock)
    return described({str(folder.share): holder_of(lock)})


def _take_leases(folder: RunFolder, holder: str, held: ExitStack) -> None:
    wait_s = max(lease.WAIT_S, lease.LAPSE_S)
    own, what = own_lock(folder), f"waiting up to {wait_s:g} s to see whether it still is"
    assert isinstance(own, UPath), f"{own}: leases are on stores"
    try:
        if holder_of(own):
            _say_waiting(folder, _in_the_way(folder, own), what)
        held.enter_context(lease.held(own, holder))
        if others := _leases_in_the_way(folder):
            _say_waiting(folder, _named({lock: holder_of(lock) for lock in others}), what)
        lease.clear(others, holder)
    except lease.Taken as taken:
        raise _refused(folder, _named({taken.file: str(taken)})) from None


def _leases_in_the_way(folder: RunFolder) -> list[UPath]:
    """The leases of the other kind that are there, held or left behind."""
    if folder.share is None:
        locks = [folder.shares / its for its in names(folder.shares) if Share.of_lock(its)]
    else:
        locks = [folder.lock_file] if holder_of(folder.lock_file) else []
    return [lock for lock in locks if isinstance(lock, UPath)]


def _named(holders: dict[UPath, str]) -> str:
    """Who holds these leases."""
    shares = {
        str(share): holder
        for lock, holder in holders.items()
        if (share := Share.of_lock(lock.name)) is not None
    }
    return described(shares) or next(iter(holders.values()))


def _refused(folder: RunFolder, holder: str) -> InUse:
    return InUse(
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
