"""Who is at work in a run folder, and who was last?

Each launch writes launch.json: the command that resumes the run, and where it was started. Whether
that launch is still at work is told by what it holds: a lock on a disk, a lease on a store.
"""

import fcntl
import json
import shlex
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from upath import UPath

from pipeline.run_folder import lease, store
from pipeline.run_folder.files import changed_at, exists, read_text
from pipeline.run_folder.layout import RunFolder

FRESH_S = 60.0
"""A run whose last sign of life is younger than this may be at work on another machine, even if its
lock cannot be seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of a job."""

    command: str
    """What was typed, as a line for a shell."""
    working_folder: str
    """Where it was typed: relative paths in the command count from there."""
    host: str
    """The machine of rank 0."""
    pid: int
    """The process of rank 0."""
    started_at: str
    """ISO 8601."""
    num_ranks: int
    run_folder: str | None = None
    """Where the run lay then; None in runs of earlier versions."""

    @property
    def holder(self) -> str:
        """The text by which others name this launch."""
        return f"process {self.pid} on {self.host} since {self.started_at}"

    @property
    def resume(self) -> str:
        """The line for a shell that starts the job again."""
        return f"cd {shlex.quote(self.working_folder)} && {self.command}"

    def resume_in(self, folder: RunFolder) -> str:
        """The same for the run that lies in `folder` now: if it was moved or copied, what must
        change in the line."""
        now = absolute(folder)
        if self.run_folder in (None, now):
            return self.resume
        return f"{self.resume}, with output={now}: the run was started as {self.run_folder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """Whether a launch is at work in a run folder."""

    is_held: bool | None
    """None: that cannot be seen from this machine."""
    holder: str
    """The launch that is at work, or the last one: process, host and time of its start; may be
    empty."""
    silent_s: float | None
    """Seconds since the last sign of life; None if there is none."""
    launch: Launch | None
    """The last launch that got as far as its plan; None in runs of earlier versions."""


def absolute(folder: RunFolder) -> str:
    """The folder's path, whatever folder it is read from."""
    is_local = isinstance(folder.path, Path) and not isinstance(folder.path, UPath)
    return str(folder.path.resolve() if is_local else folder.path)


def write_launch(folder: RunFolder, launch: Launch) -> None:
    folder.write_text(folder.launch_file, json.dumps(asdict(launch), indent=1) + "\n")


def read_launch(folder: RunFolder) -> Launch | None:
    """The last launch; None if launch.json does not exist or was not written by this version."""
    if not exists(folder.launch_file):
        return None
    try:
        return Launch(**json.loads(read_text(folder.launch_file)))
    except (ValueError, TypeError):
        return None


def at_work(folder: RunFolder) -> AtWork:
    """Whether a launch is at work in this run folder. Nothing is written, and nobody is waited
    for."""
    launch, silent_s = read_launch(folder), _silent_s(folder)
    if isinstance(folder.path, UPath):
        is_held: bool | None = _is_renewed(folder)
    else:
        is_held = _is_locked(folder)
        is_elsewhere = launch is not None and launch.host != socket.gethostname()
        if is_held is False and is_elsewhere and silent_s is not None and silent_s < FRESH_S:
            is_held = None
    return AtWork(is_held=is_held, holder=holder_of(folder), silent_s=silent_s, launch=launch)


def holder_of(folder: RunFolder) -> str:
    """The text by which the launch in run.lock names itself; empty if there is none. A lease is
    gone once its launch has ended; a lock file stays."""
    try:
        text = read_text(folder.lock_file)
    except FileNotFoundError:
        return ""
    is_lease = isinstance(folder.lock_file, UPath)
    return str(json.loads(text)["holder"]) if is_lease else text.strip()


def _is_locked(folder: RunFolder) -> bool | None:
    """Whether a process has locked run.lock; None if this file system has no locks."""
    assert isinstance(folder.lock_file, Path), f"{folder.lock_file}: locks are on disks"
    try:
        with folder.lock_file.open() as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _is_renewed(folder: RunFolder) -> bool:
    """Whether the lease was renewed lately, by the store's clock and this machine's."""
    assert isinstance(folder.path, UPath), f"{folder.path}: leases are on stores"
    renewed_at = store.listing(folder.path).get(folder.lock_file.name)
    return renewed_at is not None and time.time() - renewed_at < lease.LAPSE_S


def _silent_s(folder: RunFolder) -> float | None:
    """Seconds since a launch last wrote a plan, a part, a timeline or a log, or renewed its lease;
    None if none has."""
    written = (folder.path, folder.data, folder.timeline, folder.logs)
    signs = [changed_at(its) for its in written]
    if isinstance(folder.logs, Path):  # a log is written to without the folder being changed
        signs += [log.stat().st_mtime for log in folder.logs.glob("*.log")]
    last = max((sign for sign in signs if sign is not None), default=None)
    return None if last is None else max(0.0, time.time() - last)
