"""The workers at work, and the slowest of them: a worker far behind the others has a slow GPU or
disk, and one that has long finished no row may hang.

Rates are tokens per second since the worker had loaded the model. Rows would say less: theirs are
as many as the lengths of the answers happen to allow.
"""

import time
from dataclasses import dataclass
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run_folder.files import names
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.formatting import duration, number
from pipeline.stats.starts import Start, read_starts
from pipeline.stats.totals import add_up, times

SLOW = 0.7
"""A worker is called slow below this share of the median."""
MIN_ROWS, MIN_S, MIN_WORKERS = 8, 60.0, 3
"""Rates of fewer rows, of less time or of fewer workers are not compared."""
SILENT_S = 600.0
"""A worker that has finished no row for so long is named, if it is far longer than the others."""
NUM_HOSTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one worker gets on in the present start."""

    rank: int
    host: str
    share: str | None
    """The share of the parts that its launch does, as I/N."""
    tokens_per_s: float | None
    """None: too little work to tell."""
    silent_s: float
    """Seconds since its last entry."""

    @property
    def name(self) -> str:
        of = "" if self.share is None else f" of share {self.share}"
        return f"rank {self.rank}{of} on {self.host}"


class Workers:
    """The workers of the present start; of several, if launches with shares are at work."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._listed: list[str] = []
        self._present: list[Start] = []

    def line(self, timeline: pa.Table) -> str | None:
        """What is said of them; None if no start is recorded."""
        present = self._present_starts()
        expected = sum(start.num_workers or 0 for start in present)
        paces = [pace for start in present for pace in _paces(timeline, start)]
        if not expected:
            return None
        if not paces:
            return f"{expected} started, no row finished yet"
        hosts = sorted({pace.host for pace in paces})
        more = f" and {len(hosts) - NUM_HOSTS} more" if len(hosts) > NUM_HOSTS else ""
        text = f"{expected} on {', '.join(hosts[:NUM_HOSTS])}{more}"
        if len(paces) < expected:
            text += f", {len(paces)} of them have finished rows"
        return "; ".join([text, *_slowest(paces), *_silent(paces)])

    def _present_starts(self) -> list[Start]:
        """The last start, or the last of each share if that has one. A record is written once, so
        the records are read again only if there are more of them."""
        listed = names(self._folder.starts)
        if listed != self._listed:
            last = {start.settings.get("share"): start for start in read_starts(self._folder)}
            newest = max(last.values(), key=lambda start: start.number, default=None)
            if newest is None or newest.settings.get("share") is None:
                self._present = [] if newest is None else [newest]
            else:
                self._present = [start for share, start in last.items() if share is not None]
            self._listed = listed
        return self._present


def _paces(timeline: pa.Table, start: Start) -> list[Pace]:
    points = timeline.filter(pc.equal(timeline["start"], start.number))
    paces = []
    for rank in sorted(set(points["rank"].to_pylist())):
        own = points.filter(pc.equal(points["rank"], rank))
        work = add_up(own)
        at_work_s = work.total_s - work.start_s - work.plan_s - work.load_s
        is_enough = work.num_ok + work.num_failed >= MIN_ROWS and at_work_s >= MIN_S
        paces.append(
            Pace(
                rank=rank,
                host=own["host"][0].as_py() or "an unknown host",
                share=start.settings.get("share"),
                tokens_per_s=work.num_generated_tokens / at_work_s if is_enough else None,
                silent_s=max(0.0, time.time() - float(times(own)[1].max())),
            )
        )
    return paces


def _slowest(paces: list[Pace]) -> list[str]:
    """The slowest worker, if it is far below the median; and the median."""
    known = [(pace.tokens_per_s, pace) for pace in paces if pace.tokens_per_s is not None]
    if len(known) < MIN_WORKERS:
        return []
    middle = median(rate for rate, _ in known)
    rate, slowest = min(known, key=lambda its: its[0])
    if rate >= SLOW * middle:
        return [f"median {number(middle)} tokens/s"]
    below = f"{1 - rate / middle:.0%} below the median of {number(middle)}"
    return [f"slowest: {slowest.name} with {number(rate)} tokens/s, {below}"]


def _silent(paces: list[Pace]) -> list[str]:
    """The workers that have finished no row for far longer than the others."""
    usual = median(pace.silent_s for pace in paces)
    silent = [pace for pace in paces if pace.silent_s > max(SILENT_S, 5 * usual)]
    silent.sort(key=lambda pace: -pace.silent_s)
    told = [f"{pace.name} finished no row for {duration(pace.silent_s)}" for pace in silent[:3]]
    return [*told, *([f"and {len(silent) - 3} more"] if len(silent) > 3 else [])]
