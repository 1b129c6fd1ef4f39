"""Where does what stand in a run folder? And how does a file get there whole or not at all."""

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

from pipeline.run_folder import store
from pipeline.run_folder.files import Place, names, place

PART = re.compile(r"part-(\d+)\.parquet")
LEFT_BEHIND_S = 600.0
"""A file of tmp/ that nobody has written to for so long has no writer any more."""


class RunFolder:
    """The places of one run, on a disk or a store. A file in data/ means that its part is done.

    Raises:
        ValueError: an address that no run can be at.
    """

    def __init__(self, path: str | Place) -> None:
        self.path = place(path)
        self.plan_file = self.path / "run.json"
        self.pace_file = self.path / "pace.json"
        self.lock_file = self.path / "run.lock"
        self.config_file = self.path / "config.yaml"
        self.summary_file = self.path / "summary.json"
        self.card_file = self.path / "README.md"
        self.report_file = self.path / "report.html"
        self.scores_file = self.path / "scores.parquet"
        self.data = self.path / "data"
        self.stats = self.path / "stats"
        self.timeline = self.path / "timeline"
        self.logs = self.path / "logs"
        self._tmp = self.path / "tmp"

    def make(self) -> None:
        """Create the folders, and try them.

        Raises:
            ValueError: it cannot be written.
        """
        trial = self._temporary("trial")
        try:
            if isinstance(trial, UPath):
                store.write(trial, lambda stream: stream.write(b"trial"))
                store.remove(trial)
                return
            for folder in (self.data, self.stats, self.timeline, self.logs, self._tmp):
                folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            raise ValueError(
                f"output={self.path}: cannot be written ({why}); "
                "name a folder that you may write to"
            ) from error

    def data_file(self, part: int) -> Place:
        return self.data / f"part-{part:05d}.parquet"

    def stats_file(self, part: int) -> Place:
        return self.stats / f"part-{part:05d}.parquet"

    def timeline_file(self, rank: int, started_ms: int) -> Place:
        return self.timeline / f"rank-{rank:04d}-{started_ms}.parquet"

    def log_file(self, rank: int) -> Place:
        return self.logs / f"rank-{rank}.log"

    def parts_done(self) -> set[int]:
        """From one listing, however many there are."""
        return self._parts_in(self.data)

    def parts_with_stats(self) -> set[int]:
        return self._parts_in(self.stats)

    def write_table(self, file: Place, table: pa.Table) -> None:
        self._write(file, lambda stream: pq.write_table(table, stream, compression="zstd"))

    def write_text(self, file: Place, text: str) -> None:
        self._write(file, lambda stream: stream.write(text.encode("utf-8")))

    def write_new_text(self, file: Place, text: str) -> bool:
        """Whether it was written: of several that try, one does."""
        if isinstance(file, UPath):
            return store.write_if(file, text, None) is not None
        tmp = self._tmp / f"new-{file.name}.{socket.gethostname()}-{os.getpid()}"
        assert isinstance(tmp, Path), f"{tmp}: files of one run are all on a disk or all on a store"
        self._write(tmp, lambda stream: stream.write(text.encode("utf-8")))
        try:
            os.link(tmp, file)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: nearly as good
            if file.exists():
                return False
            tmp.replace(file)
        finally:
            tmp.unlink(missing_ok=True)
        _sync(file.parent)
        return True

    def clear_tmp(self) -> None:
        """Remove what killed writers left; what is younger may still be written."""
        if isinstance(self._tmp, UPath):
            return
        for file in self._tmp.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > LEFT_BEHIND_S:
                    file.unlink()

    def _write(self, file: Place, fill: Callable[[IO[bytes]], object]) -> None:
        """Beside, to the disk, and under its name in one move, which then is on the disk too. A
        store takes an object whole or not at all."""
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
        found = (PART.fullmatch(name) for name in names(folder))
        return {int(match[1]) for match in found if match}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
