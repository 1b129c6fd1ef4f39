"""Adds up stats rows over parts, workers and starts, and derives the rates of a run.

Tokens are those before EOS. Rates are per second of the job's whole wall time, including loading;
only `tokens_per_engine_s` is per second in the engine.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run_folder.files import read_tables
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.share import Share
from pipeline.stats.meter import STATS_SCHEMA, Work, ratio
from pipeline.stats.timeline import read_timeline

GAP_S = 1.0
"""If no worker was running for longer than this, the job was started anew."""
RATES = (
    *("tokens_per_s", "rows_per_s", "tokens_per_engine_s", "tokens_per_forward"),
    *("query_tokens_per_token", "mean_sequences"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(Work):
    """Stats rows added up. Seconds are summed over the workers, except `wall_s`."""

    wall_s: float = 0.0
    """Time in which at least one worker was running; without the time between two starts."""
    tail_s: float = 0.0
    """Time in which a worker had finished while others of its launch were still at work."""
    peak_pages: int = 0
    peak_cache_bytes: int = 0
    num_workers: int = 0
    hosts: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    git_revisions: list[str] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float | None:
        return ratio(self.num_generated_tokens, self.wall_s)

    @property
    def rows_per_s(self) -> float | None:
        return ratio(self.num_ok + self.num_failed, self.wall_s)

    @property
    def tokens_per_engine_s(self) -> float | None:
        """Tokens per second in the engine of one worker."""
        return ratio(self.num_generated_tokens, self.engine_s)

    @property
    def query_tokens_per_token(self) -> float | None:
        return ratio(sum(self.num_query_tokens.values()), self.num_generated_tokens)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), **{name: getattr(self, name) for name in RATES}}


def add_up(table: pa.Table) -> Totals:
    """The totals of a table of work: stats rows of parts, or points of timelines."""
    if not table.num_rows:
        return Totals()
    amounts = {f.name: _sum(table[f.name]) for f in fields(Work)}
    return Totals(
        **amounts,
        wall_s=sum(end - start for start, end in spans_of_starts(table)),
        tail_s=sum(_tail_s(_spans(its), its) for its in _by_share(table)),
        peak_pages=pc.max(table["peak_pages"]).as_py(),
        peak_cache_bytes=pc.max(table["peak_cache_bytes"]).as_py(),
        num_workers=len(workers(table)),
        hosts=_distinct(table["host"]),
        devices=_distinct(table["device"]),
        git_revisions=_distinct(table["git_revision"]),
    )


def read_stats(folder: RunFolder, parts: Iterable[int]) -> pa.Table:
    """The stats rows of these parts, without the column `versions`. Parts without a stats file are
    left out."""
    wanted = set(parts)
    found = wanted & folder.parts_with_stats() if wanted else wanted
    names = [name for name in STATS_SCHEMA.names if name != "versions"]
    return read_tables([folder.stats_file(part) for part in sorted(found)], STATS_SCHEMA, names)


def read_work(folder: RunFolder, parts: Iterable[int]) -> pa.Table:
    """All work of a run, from its timelines, which include work on parts that were lost to a kill.
    For a run without timelines: the stats rows of these parts."""
    timeline = read_timeline(folder)
    return timeline if timeline.num_rows else read_stats(folder, parts)


def failures(folder: RunFolder, timeline: pa.Table, parts: Iterable[int]) -> dict[int, int]:
    """The number of failed rows of each of these parts, from the timeline. A part that is not in
    it yet, because it was written just now, is looked up in its stats row; a part that has neither
    is left out."""
    num_failed: dict[int, int] = {}
    # In the order of time: if a part was written twice, the last number counts.
    for written in timeline.sort_by("finished_at")["parts"].to_pylist():
        num_failed.update(written or ())
    known = {part: num_failed[part] for part in parts if part in num_failed}
    rows = read_stats(folder, set(parts) - known.keys())
    named = zip(rows["part"].to_pylist(), rows["num_failed"].to_pylist(), strict=True)
    return {**known, **dict(named)}


def times(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """When the work of each row began and ended, in seconds since 1970."""
    ends = table["finished_at"].cast(pa.int64()).to_numpy() / 1e6
    return ends - table["total_s"].to_numpy(), ends


def workers(table: pa.Table) -> list[tuple[str, pa.Table]]:
    """Each worker's name and its work. Launches with different shares each count their ranks from
    0, so a worker is a rank of a share."""
    found = []
    for its in _by_share(table):
        ranks, share = sorted(pc.unique(its["rank"]).to_pylist()), its["share"][0].as_py()
        for rank in ranks:
            of_share = f"{share}, rank {rank}" if len(ranks) > 1 else f"{share}"
            name = str(rank) if share is None else of_share
            found.append((name, its.filter(pc.equal(its["rank"], rank))))
    return found


def _by_share(table: pa.Table) -> list[pa.Table]:
    """The work of launches of all parts, and that of each share."""
    shares = pc.unique(table["share"]).to_pylist()
    if len(shares) < 2:
        return [table] if table.num_rows else []
    given = sorted(filter(None, map(Share.of, filter(None, shares))))
    kinds = [pc.is_null(table["share"])] * (None in shares)
    kinds += [pc.fill_null(pc.equal(table["share"], str(its)), False) for its in given]
    return [table.filter(kind) for kind in kinds]


def spans_of_starts(table: pa.Table) -> list[tuple[float, float]]:
    """When each start of the job began and ended, in order; no two overlap. Starts of different
    shares that overlap are one."""
    by_share = [_spans(its) for its in _by_share(table)]
    if len(by_share) == 1:
        return by_share[0]
    joined: list[tuple[float, float]] = []
    for start, end in sorted(span for spans in by_share for span in spans):
        if joined and start <= joined[-1][1] + GAP_S:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _spans(table: pa.Table) -> list[tuple[float, float]]:
    """The spans of starts of one share.

    A start is over when a worker of it starts anew, however soon (torchrun can restart its ranks
    at once), or when no worker has been running for more than GAP_S.
    """
    spans: list[tuple[float, float]] = []
    over: dict[int, int] = {}  # rank -> its last start in the spans that are over
    current: dict[int, int] = {}  # rank -> its start in the last span
    starts, ends = times(table)
    ranks, numbers = table["rank"].to_numpy(), _numbers_of_starts(table, ends)
    columns = (column.tolist() for column in (starts, ends, ranks, numbers))
    for start, end, rank, number in sorted(zip(*columns, strict=True)):
        is_restart = number > current.get(rank, number)
        if spans and start <= spans[-1][1] + GAP_S and not is_restart:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            start = max(start, spans[-1][1]) if spans else start
            spans.append((start, max(start, end)))
            over, current = over | current, {}
        if number > over.get(rank, -1):  # not work of the start before that is still coming in
            current[rank] = number
    return spans


def _numbers_of_starts(table: pa.Table, ends: np.ndarray) -> np.ndarray:
    """For each row, how often its worker had started by then: the first row of each start of a
    worker has num_starts=1, the others 0."""
    ranks, num_starts = table["rank"].to_numpy(), pc.fill_null(table["num_starts"], 0).to_numpy()
    numbers = np.zeros(len(ends), dtype=np.int64)
    for rank in np.unique(ranks):
        rows = np.flatnonzero(ranks == rank)
        rows = rows[np.argsort(ends[rows], kind="stable")]
        numbers[rows] = np.cumsum(num_starts[rows])
    return numbers


def _tail_s(spans: list[tuple[float, float]], table: pa.Table) -> float:
    """Seconds from each worker's last work to the end of the last worker, summed over workers and
    starts."""
    ranks, ends, total_s = table["rank"].to_numpy(), times(table)[1], 0.0
    for start, end in spans:
        inside = (ends > start) & (ends <= end)
        for rank in np.unique(ranks[inside]):
            total_s += end - float(ends[inside & (ranks == rank)].max())
    return total_s


def _sum(column: pa.ChunkedArray) -> Any:
    if not pa.types.is_map(column.type):
        return pc.sum(column).as_py() or 0
    counts: dict[str, int] = {}
    for pairs in column.to_pylist():
        for kind, count in pairs or ():
            counts[kind] = counts.get(kind, 0) + count
    return counts


def _distinct(column: pa.ChunkedArray) -> list[str]:
    return sorted(pc.unique(column.drop_null()).to_pylist())
