"""What did a worker do when? stats/timeline-RANK-START.parquet: a point every few seconds.

The file is replaced by a longer one now and then, as a whole like every file of the run, and not
appended to: no reader meets a torn end, and thinning out is the same act. A kill takes away the
last WRITE_S at most. Past MAX_POINTS, two neighbours become one, so a long run has as many points
as a short one, further apart. What cannot be written is said in the log and harms nothing.
"""

import logging
import time
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.files import names, read_tables
from pipeline.folder import RunFolder
from pipeline.stats import WORK_SCHEMA, Meter, Work

TIMELINE_SCHEMA = pa.schema([*WORK_SCHEMA, ("parts", pa.map_(pa.int32(), pa.int64()))])
"""`parts`: those that were written, with their failed rows, so that nobody who wants to know of
many parts must open many files."""

log = logging.getLogger("pipeline")

POINT_S = 2.0
WRITE_S = 10.0
MAX_POINTS = 1000


class Timeline:
    """One worker's points since its start."""

    def __init__(self, meter: Meter, folder: RunFolder) -> None:
        self._meter = meter
        self._folder = folder
        self._started_ms = time.time_ns() // 1_000_000
        self._every_s = POINT_S
        self._before = Work()
        self._rows: list[dict[str, Any]] = []
        self._looked_at = time.monotonic()
        self._written_at = float("-inf")

    def look(self) -> None:
        """After every row: a point, if it is time for one."""
        now = time.monotonic()
        if now - self._looked_at >= self._every_s:
            self.point()
            if now - self._written_at >= WRITE_S:
                self._write()

    def point(self) -> None:
        """What was done since the last point."""
        work = self._meter.work()
        done = self._meter.described(work - self._before)
        self._rows.append({**done, "parts": self._meter.written()})
        self._before, self._looked_at = work, time.monotonic()
        if len(self._rows) > MAX_POINTS:
            self._rows = thinned(self._rows)
            self._every_s *= 2

    def end(self) -> None:
        """The last point, and all of them in the file."""
        self.point()
        self._write()

    def _write(self) -> None:
        rank = self._rows[0]["rank"]
        file = self._folder.stats / f"timeline-{rank:04d}-{self._started_ms}.parquet"
        self._written_at = time.monotonic()
        try:
            self._folder.write_table(file, pa.Table.from_pylist(self._rows, schema=TIMELINE_SCHEMA))
        except OSError as error:
            log.warning("%s: not written (%s); the job goes on", file, error)


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every two neighbours as one."""
    pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    return [_joined(*pair) if len(pair) == 2 else pair[0] for pair in pairs]


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    work = _work(first) + _work(second)
    rates = {name: getattr(work, name) for name in ("mean_sequences", "tokens_per_forward")}
    return {**second, **asdict(work), **rates, "parts": first["parts"] | second["parts"]}


def _work(row: dict[str, Any]) -> Work:
    return Work(**{name: row[name] for name in Work.__dataclass_fields__})


def read_timeline(folder: RunFolder) -> pa.Table:
    """All points of all workers and starts."""
    files = [folder.stats / name for name in names(folder.stats) if name.startswith("timeline-")]
    return read_tables(files, TIMELINE_SCHEMA, TIMELINE_SCHEMA.names)
