"""Where does what stand in a run folder? And how does a file get there whole or not at all."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LEFT_BEHIND_S = 600.0
"""A file of tmp/ that nobody has written to for so long has no writer any more."""


class RunFolder:
    """The places of one run. A file in data/ means that its part is done."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.plan_file = self.path / "run.json"
        self.lock_file = self.path / "run.lock"
        self.config_file = self.path / "config.yaml"
        self.summary_file = self.path / "summary.json"
        self.card_file = self.path / "README.md"
        self.report_file = self.path / "report.html"
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
        try:
            for folder in (self.data, self.stats, self.timeline, self.logs, self._tmp):
                folder.mkdir(parents=True, exist_ok=True)
            trial = self._temporary("trial")
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ValueError(
                f"output={self.path}: cannot be written ({error.strerror}: {error.filename}); "
                "name a folder that you may write to"
            ) from error

    def data_file(self, part: int) -> Path:
        return self.data / f"part-{part:05d}.parquet"

    def stats_file(self, part: int) -> Path:
        return self.stats / f"part-{part:05d}.parquet"

    def timeline_file(self, rank: int, started_ms: int) -> Path:
        return self.timeline / f"rank-{rank:04d}-{started_ms}.parquet"

    def log_file(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"

    def parts_done(self) -> set[int]:
        return {int(file.stem.removeprefix("part-")) for file in self.data.glob("part-*.parquet")}

    def write_table(self, file: Path, table: pa.Table) -> None:
        self._write(file, lambda tmp: pq.write_table(table, tmp, compression="zstd"))

    def write_text(self, file: Path, text: str) -> None:
        self._write(file, lambda tmp: tmp.write_text(text, encoding="utf-8"))

    def clear_tmp(self) -> None:
        """Remove what killed writers left; what is younger may still be written."""
        for file in self._tmp.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > LEFT_BEHIND_S:
                    file.unlink()

    def _write(self, file: Path, write: Callable[[Path], object]) -> None:
        """Beside, to the disk, and under its name in one move, which then is on the disk too."""
        tmp = self._temporary(f"{file.parent.name}-{file.name}")
        try:
            write(tmp)
            _sync(tmp)
            tmp.replace(file)
            _sync(file.parent)
        finally:
            tmp.unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self._tmp / f"{name}.{socket.gethostname()}-{os.getpid()}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
