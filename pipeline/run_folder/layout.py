"""The paths of all files in a run folder, and atomic writes to them."""

import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from engine.errors import UserError
from pipeline.run_folder import store
from pipeline.run_folder.files import Place, names, place
from pipeline.run_folder.share import Share

PART_NAME = re.compile(r"part-(\d+)\.parquet")
LEFT_BEHIND_S = 600.0
"""A file in tmp/ that has not been written to for this long was left behind by a killed process."""


class RunFolder:
    """The paths of one run's files, on a local disk or on an object store.

    A file in data/ means that its part is done. The write_... methods are atomic: a file appears
    under its name complete or not at all, so a killed writer leaves no partial file there.

    Raises:
        UserError: the address is a URL of something else, or contains credentials.
    """

    def __init__(self, path: str | Place, share: Share | None = None) -> None:
        """`share`: what this process does of the run; its lock and logs have names of their own.
        None: all of it, or it only reads."""
        self.path = place(path)
        self.share = share
        self.plan_file = self.path / "run.json"
        self.pace_file = self.path / "pace.json"
        self.lock_file = self.path / "run.lock"
        self.shares = self.path / "shares"
        """One lock for each share that was at work."""
        self.launch_file = self.path / "launch.json"
        self.config_file = self.path / "config.yaml"
        self.summary_file = self.path / "summary.json"
        self.card_file = self.path / "README.md"
        self.report_file = self.path / "report.html"
        self.scores_file = self.path / "scores.parquet"
        self.score_file = self.path / "scores.json"
        self.starts = self.path / "starts"
        self.data = self.path / "data"
        self.stats = self.path / "stats"
        self.timeline = self.path / "timeline"
        self.logs = self.path / "logs"
        self.broken = self.path / "broken"
        self.slurm = self.path / "slurm"
        self._tmp = self.path / "tmp"

    def make(self) -> None:
        """Create the subfolders, and check that files can be written, by a trial file.

        Raises:
            UserError: the run folder cannot be written.
        """
        trial = self._temporary("trial")
        try:
            if isinstance(trial, UPath):
                store.write(trial, lambda stream: stream.write(b"trial"))
                store.remove(trial)
                return
            for folder in (
                *(self.data, self.stats, self.timeline, self.starts),
                *(self.logs, self._tmp),
            ):
                folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            raise self._unwritable(why) from error

    def check_permissions(self) -> None:
        """Check that `make` will be allowed to write to the folder, without writing. On a store
        that cannot be told.

        Raises:
            UserError: it will not.
        """
        if not isinstance(self.path, Path):
            return
        there = [its for its in (self.data, self.stats, self._tmp) if isinstance(its, Path)]
        for folder in (self.path, *(its for its in there if its.exists())):
            place = next(its for its in (folder, *folder.absolute().parents) if its.exists())
            if not place.is_dir():
                raise self._unwritable(f"{place} is a file")
            if not os.access(place, os.W_OK | os.X_OK):
                raise self._unwritable(f"no permission to write to {place}")

    def _unwritable(self, why: str) -> UserError:
        return UserError(
            f"output={self.path}: cannot be written ({why}); name a folder that you may write to"
        )

    def data_file(self, part: int) -> Place:
        return self.data / f"part-{part:05d}.parquet"

    def stats_file(self, part: int) -> Place:
        return self.stats / f"part-{part:05d}.parquet"

    def timeline_file(self, rank: int, start: str) -> Place:
        return self.timeline / f"rank-{rank:04d}-{start}.parquet"

    def start_file(self, number: int) -> Place:
        return self.starts / f"start-{number:04d}.json"

    def log_file(self, rank: int) -> Place:
        own = "" if self.share is None else f"{self.share.file_name}-"
        return self.logs / f"{own}rank-{rank}.log"

    def share_lock_file(self, share: Share) -> Place:
        return self.shares / share.lock_name

    def make_slurm(self) -> None:
        """Create slurm/, which only runs that were submitted to Slurm have."""
        self.make()
        if not isinstance(self.slurm, UPath):
            self.slurm.mkdir(exist_ok=True)

    def set_aside(self, file: Place) -> None:
        """Move a file out of data/, stats/ or timeline/ to broken/, under a name that no glob for
        Parquet finds and that no other file has. Returns its new path."""
        assert isinstance(file, Path), f"{file}: only files on a disk are set aside"
        assert isinstance(self.broken, Path), f"{file}: files of one run are all on a disk"
        self.broken.mkdir(exist_ok=True)
        name = f"{file.parent.name}-{file.name}.{time.time_ns() // 1_000_000}"
        file.rename(self.broken / name)

    def parts_done(self) -> set[int]:
        """The indices of the parts that have a file in data/, from a single listing."""
        return self._parts_in(self.data)

    def parts_with_stats(self) -> set[int]:
        """The indices of the parts that have a file in stats/."""
        return self._parts_in(self.stats)

    def write_table(self, file: Place, table: pa.Table) -> None:
        self._write(file, lambda stream: pq.write_table(table, stream, compression="zstd"))

    def write_text(self, file: Place, text: str) -> None:
        self._write(file, lambda stream: stream.write(text.encode("utf-8")))

    def write_new_text(self, file: Place, text: str) -> bool:
        """Write a file only if it does not exist yet; returns whether this call wrote it.

        If several processes try at the same time, one succeeds.
        """
        if isinstance(file, UPath):
            return store.write_if(file, text, None) is not None
        tmp = self._tmp / f"new-{file.name}.{socket.gethostname()}-{os.getpid()}"
        assert isinstance(tmp, Path), f"{tmp}: files of one run are all on a disk or all on a store"
        self._write(tmp, lambda stream: stream.write(text.encode("utf-8")))
        try:
            os.link(tmp, file)
        except FileExistsError:
            return False
        except OSError:  # this file system has no hard links: a race is possible here
            if file.exists():
                return False
            tmp.replace(file)
        finally:
            tmp.unlink(missing_ok=True)
        _sync(file.parent)
        return True

    def clear_tmp(self) -> None:
        """Remove old files that killed writers left in tmp/. A younger one may still be in use."""
        if isinstance(self._tmp, UPath):
            return
        for file in self._tmp.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > LEFT_BEHIND_S:
                    file.unlink()

    def _write(self, file: Place, fill: Callable[[IO[bytes]], object]) -> None:
        """Write a file atomically: to tmp/, fsync, then rename to its name, and fsync its folder so
        that the rename is on the disk too. On a store, a single write is atomic already."""
        if isinstance(file, UPath):
            store.write(file, fill)
            return
        tmp = self._temporary(f"{file.parent.name}-{file.name}")
        assert isinstance(tmp, Path), f"{tmp}: files of one run are all on a disk or all on a store"
        try:
            with tmp.open("wb") as stream:
                fill(stream)
            _sync(tmp)
            tmp.replace(file)
            _sync(file.parent)
        finally:
            tmp.unlink(missing_ok=True)

    def _temporary(self, name: str) -> Place:
        return self._tmp / f"{name}.{socket.gethostname()}-{os.getpid()}"

    def _parts_in(self, folder: Place) -> set[int]:
        found = (PART_NAME.fullmatch(name) for name in names(folder))
        return {int(match[1]) for match in found if match}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
