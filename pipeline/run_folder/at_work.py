"""Who is at work in a run folder, and who was last?

Each launch writes launch.json: the command that resumes the run, and where it was started. Whether
that launch is still at work is told by what it holds: a lock on a disk, a lease on a store. Several
launches may be at work, each on its share of the parts (pipeline/run_folder/share.py).
"""

import fcntl
import json
import shlex
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from upath import UPath

from pipeline.run_folder import lease, store
from pipeline.run_folder.files import Place, changed_at, exists, names, read_text
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.share import Share

FRESH_S = 60.0
"""A run whose last sign of life is younger than this may be at work on another machine, even if its
lock cannot be seen from here."""
NUM_NAMED = 8
"""At most this many shares are named."""


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
    share: str | None = None
    """The share of the parts that it did, as I/N; None: all parts."""

    @property
    def holder(self) -> str:
        """The text by which others name this launch."""
        return f"process {self.pid} on {self.host} since {self.started_at}"

    @property
    def command_of_all(self) -> str:
        """The command without its share: it does all parts that are left, and the summary."""
        words = shlex.split(self.command)
        return shlex.join(word for word in words if not word.lstrip("+").startswith("share="))

    @property
    def resume(self) -> str:
        """The line for a shell that starts the job again."""
        return f"cd {shlex.quote(self.working_folder)} && {self.command}"

    def resume_in(self, folder: RunFolder) -> str:
        """The same for the run that lies in `folder` now: if it was moved or copied, what must
        change in the line."""
        now, line = absolute(folder), self.resume
        if self.share is not None:
            line += f" (without share={self.share} it does all that is left)"
        if self.run_folder in (None, now):
            return line
        return f"{line}, with output={now}: the run was started as {self.run_folder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtWork:
    """Whether a launch is at work in a run folder."""

    is_held: bool | None
    """None: that cannot be seen from this machine."""
    holder: str
    """The launch that is at work, or the last one: process, host and time of its start; may be
    empty. Of several, each with its share."""
    silent_s: float | None
    """Seconds since the last sign of life; None if there is none."""
    launch: Launch | None
    """The last launch that got as far as its plan; None in runs of earlier versions."""
    shares: dict[str, str] = field(default_factory=dict)
    """The shares that are at work (I/N), and who is on each."""


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
    launch, silent_s, shares = read_launch(folder), _silent_s(folder), shares_at_work(folder)
    if shares:
        is_held: bool | None = True
    elif isinstance(folder.path, UPath):
        is_held = folder.lock_file.name in _renewed(folder.path)
    else:
        is_held = _is_locked(folder.lock_file)
        is_elsewhere = launch is not None and launch.host != socket.gethostname()
        if is_held is False and is_elsewhere and silent_s is not None and silent_s < FRESH_S:
            is_held = None
    holder = described(shares) if shares else holder_of(folder.lock_file)
    return AtWork(is_held=is_held, holder=holder, silent_s=silent_s, launch=launch, shares=shares)


def holder_of(lock: Place) -> str:
    """The text by which the launch in a lock file names itself; empty if there is none. A lease is
    gone once its launch has ended; a lock file stays."""
    try:
        text = read_text(lock)
    except FileNotFoundError:
        return ""
    return str(json.loads(text)["holder"]) if isinstance(lock, UPath) else text.strip()


def shares_at_work(folder: RunFolder) -> dict[str, str]:
    """The shares that launches are at work on, as I/N, and the text by which each launch names
    itself. Where no lock can be seen, there are none."""
    if isinstance(folder.shares, UPath):
        at_work = _renewed(folder.shares)
    else:
        at_work = {name for name in names(folder.shares) if _is_locked(folder.shares / name)}
    shares = sorted(share for share in map(Share.of_lock, at_work) if share is not None)
    return {str(share): holder_of(folder.share_lock_file(share)) for share in shares}


def described(shares: dict[str, str]) -> str:
    """Who is at work on which share, in words."""
    told = [f"share {its}: {holder or 'holder unknown'}" for its, holder in shares.items()]
    more = f" and {len(told) - NUM_NAMED} more" if len(told) > NUM_NAMED else ""
    return f"{', '.join(told[:NUM_NAMED])}{more}"


def _is_locked(lock: Place) -> bool | None:
    """Whether a process has locked this file for itself; None if this file system has no locks."""
    assert isinstance(lock, Path), f"{lock}: locks are on disks"
    try:
        with lock.open() as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _renewed(folder: UPath) -> set[str]:
    """The names of the objects in a folder that were written lately, by the store's clock and this
    machine's: among them the leases that are held."""
    now = time.time()
    return {name for name, at in store.listing(folder).items() if now - at < lease.LAPSE_S}


def _silent_s(folder: RunFolder) -> float | None:
    """Seconds since a launch last wrote a plan, a part, a timeline or a log, or renewed its lease;
    None if none has."""
    written = (folder.path, folder.data, folder.timeline, folder.logs)
    signs = [changed_at(its) for its in written]
    if isinstance(folder.logs, Path):  # a log is written to without the folder being changed
        signs += [log.stat().st_mtime for log in folder.logs.glob("*.log")]
    last = max((sign for sign in signs if sign is not None), default=None)
    return None if last is None else max(0.0, time.time() - last)
