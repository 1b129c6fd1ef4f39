"""What did a worker do when? timeline/rank-RANK-START.parquet: a point every few seconds.

The file is replaced by a longer one, as a whole like every file of the run, and not appended to: no
reader meets a torn end, and thinning out is the same act. That is done every WRITE_S, and before a
part is moved into data/, so that its tokens have their seconds even after a kill (but for PART_S).
Past MAX_POINTS, two neighbours become one: a long run has as many points as a short one, further
apart. What cannot be written is said in the log and harms nothing.
"""

import logging
import time
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.run_folder.files import names, read_tables
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import WORK, WORK_SCHEMA, Meter, Work

TIMELINE_SCHEMA = pa.schema([*WORK_SCHEMA, ("parts", pa.map_(pa.int32(), pa.int64()))])
"""`parts`: those that were written, with their failed rows, so that nobody who wants to know of
many parts must open many files."""

log = logging.getLogger("pipeline")

POINT_S = 2.0
WRITE_S = 10.0
PART_S = 1.0
MAX_POINTS = 1000


class Timeline:
    """One worker's points since its start."""

    def __init__(self, meter: Meter, folder: RunFolder) -> None:
        self._meter = meter
        self._folder = folder
        self._started_ms = time.time_ns() // 1_000_000
        self._every_s = POINT_S
        self._before = Work()
        self._parts: dict[int, int] = {}
        self._points = TIMELINE_SCHEMA.empty_table()
        self._looked_at = time.monotonic()
        self._written_at = float("-inf")

    def look(self) -> None:
        """After every row: a point, if it is time for one."""
        now = time.monotonic()
        if now - self._looked_at >= self._every_s:
            self.point()
            if now - self._written_at >= WRITE_S:
                self._write(self._points)

    def part(self) -> None:
        """A part is about to stand in data/."""
        if time.monotonic() - self._written_at >= PART_S:
            self._write(pa.concat_tables([self._points, self._since(self._meter.work())]))

    def point(self) -> None:
        """What was done since the last point."""
        work = self._meter.work()
        self._points = pa.concat_tables([self._points, self._since(work)]).combine_chunks()
        self._before, self._parts = work, {}
        self._looked_at = time.monotonic()
        if self._points.num_rows > MAX_POINTS:
            self._points = _table(thinned(self._points.to_pylist()))
            self._every_s *= 2

    def end(self) -> None:
        """The last point, and all of them in the file."""
        self.point()
        self._write(self._points)

    def _since(self, work: Work) -> pa.Table:
        self._parts |= self._meter.written()
        done = self._meter.described(work - self._before)
        return _table([{**done, "parts": self._parts}])

    def _write(self, points: pa.Table) -> None:
        file = self._folder.timeline_file(points["rank"][0].as_py(), self._started_ms)
        self._written_at = time.monotonic()
        try:
            self._folder.write_table(file, points)
        except OSError as error:
            log.warning("%s: not written (%s); the job goes on", file, error)


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every two neighbours as one."""
    pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    return [_joined(*pair) if len(pair) == 2 else pair[0] for pair in pairs]


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    work = _work(first) + _work(second)
    rates = {name: getattr(work, name) for name in ("mean_sequences", "tokens_per_forward")}
    parts = dict(first["parts"]) | dict(second["parts"])
    return {**second, **asdict(work), **rates, "parts": parts}


def _work(row: dict[str, Any]) -> Work:
    """Arrow gives maps as lists of pairs."""
    amounts: dict[str, Any] = {
        name: dict(row[name]) if isinstance(row[name], list) else row[name] for name in WORK
    }
    return Work(**amounts)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TIMELINE_SCHEMA)


def read_timeline(folder: RunFolder, columns: list[str] | None = None) -> pa.Table:
    """All points of all workers and starts, whole or only some columns."""
    files = [folder.timeline / name for name in names(folder.timeline) if name.endswith(".parquet")]
    return read_tables(files, TIMELINE_SCHEMA, columns or TIMELINE_SCHEMA.names)
