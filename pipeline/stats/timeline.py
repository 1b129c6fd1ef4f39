"""Records one worker's work over time, a point every few seconds: timeline/rank-RANK-START.parquet.

A point is a stretch of work since the point before. The file is never appended to: like every file
of the run it is replaced as a whole, so a reader never finds half a file, and points can be merged.
It is written every WRITE_S, and before each part is moved into data/, so that the time spent on a
part in data/ is recorded even if the worker is killed (except for up to PART_S). Above MAX_POINTS,
each two neighbouring points are merged into one: a long run has no more points than a short one,
they are only further apart. If the file cannot be written, the log says so and the job continues.
"""

import logging
import time
import uuid
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.run_folder.files import names, read_tables
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import WORK, WORK_SCHEMA, Meter, Work

TIMELINE_SCHEMA = pa.schema([*WORK_SCHEMA, ("parts", pa.map_(pa.int32(), pa.int64()))])
"""`parts`: the parts written in this time -> the number of their failed rows. With it, the failed
rows of many parts can be counted from a few files."""

log = logging.getLogger("pipeline")

POINT_S = 2.0
"""Between two points; doubled whenever points are merged."""
WRITE_S = 10.0
"""Between two writes of the file."""
PART_S = 1.0
"""A part does not cause a write if the last one was less than this ago."""
MAX_POINTS = 1000


class Timeline:
    """One worker's points since its start."""

    def __init__(self, meter: Meter, folder: RunFolder) -> None:
        self._meter = meter
        self._folder = folder
        # The time sorts the files. The random part keeps two starts apart that the system clock,
        # set back in between, gives the same time.
        self._start = f"{time.time_ns() // 1_000_000}-{uuid.uuid4().hex[:8]}"
        self._every_s = POINT_S
        self._before = Work()
        self._parts: dict[int, int] = {}
        self._points = TIMELINE_SCHEMA.empty_table()
        self._point_at = time.monotonic()
        self._written_at = float("-inf")

    def add_point_if_due(self) -> None:
        """Called after every row. Adds a point if it is time for one, and writes the file if it is
        time for that too."""
        now = time.monotonic()
        if now - self._point_at >= self._every_s:
            self.add_point()
            if now - self._written_at >= WRITE_S:
                self._write(self._points)

    def write_before_part(self) -> None:
        """Called before a part is moved into data/. Writes the file with the work up to now, which
        does not become a point yet."""
        if time.monotonic() - self._written_at >= PART_S:
            self._write(pa.concat_tables([self._points, self._since(self._meter.work())]))

    def add_point(self) -> None:
        """Add the work since the last point as a point; merge points if there are too many."""
        work = self._meter.work()
        self._points = pa.concat_tables([self._points, self._since(work)]).combine_chunks()
        self._before, self._parts = work, {}
        self._point_at = time.monotonic()
        if self._points.num_rows > MAX_POINTS:
            self._points = _table(thinned(self._points.to_pylist()))
            self._every_s *= 2

    def finish(self) -> None:
        """Add the last point and write the file."""
        self.add_point()
        self._write(self._points)

    def _since(self, work: Work) -> pa.Table:
        """The work since the last point, as a table of one row."""
        self._parts |= self._meter.take_written()
        row = self._meter.as_row(work - self._before)
        return _table([{**row, "parts": self._parts}])

    def _write(self, points: pa.Table) -> None:
        file = self._folder.timeline_file(points["rank"][0].as_py(), self._start)
        self._written_at = time.monotonic()
        try:
            self._folder.write_table(file, points)
        except OSError as error:
            log.warning("%s: not written (%s); the job continues without it", file, error)


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Half as many points: each two neighbours are merged into one."""
    pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    return [_joined(*pair) if len(pair) == 2 else pair[0] for pair in pairs]


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    work = _work(first) + _work(second)
    rates = {name: getattr(work, name) for name in ("mean_sequences", "tokens_per_forward")}
    parts = dict(first["parts"]) | dict(second["parts"])
    return {**second, **asdict(work), **rates, "parts": parts}


def _work(row: dict[str, Any]) -> Work:
    """The work of a point that was read back; Arrow returns maps as lists of pairs."""
    amounts: dict[str, Any] = {
        name: dict(row[name]) if isinstance(row[name], list) else row[name] for name in WORK
    }
    return Work(**amounts)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TIMELINE_SCHEMA)


def read_timeline(folder: RunFolder, columns: list[str] | None = None) -> pa.Table:
    """All points of all workers and all starts; of these columns only, if given."""
    files = [folder.timeline / name for name in names(folder.timeline) if name.endswith(".parquet")]
    return read_tables(files, TIMELINE_SCHEMA, columns or TIMELINE_SCHEMA.names)
