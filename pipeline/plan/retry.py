"""Finds what is left to do: parts without a file and, with `retry_failed=true`, the failed rows of
parts that have one.

A part with failed rows is drawn like any other. Only its failed rows go into the engine again, and
its file is replaced atomically by one with these rows new and all others unchanged.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.parts import Part
from pipeline.plan.run_json import Plan
from pipeline.run_folder.files import Place, exists, open_parquet
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.share import Share
from pipeline.run_folder.store import THREADS
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import failures


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left to do when a job starts. Rank 0 finds it and passes it on to all workers."""

    num_outcomes: int = 0
    """Output rows that are still to run, failed rows that run again included."""
    retried: list[int] = field(default_factory=list)
    """Parts whose file holds failed rows that are to run again; none without retry_failed."""
    num_failed: int = 0
    """Failed rows that are not to run again."""
    last_at: str | None = None
    """Time of the last entry in the workers' timelines, without those of other shares (ISO 8601);
    None in a new run."""
    start: int | None = None
    """The number of this start (pipeline/stats/starts.py); None if nothing is left to do."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Remaining":
        return cls(**json.loads(text))


def find_remaining(plan: Plan, folder: RunFolder, retry_failed: bool) -> Remaining:
    """What is left to do of this plan, from the files in the run folder. Only with `retry_failed`
    does each output file have to be opened, to count its failed rows."""
    there = folder.parts_done() & {part.index for part in plan.parts}
    done, timeline = sorted(there), read_timeline(folder, ["finished_at", "parts", "share"])
    last = pc.max(_work_before(timeline, folder.share)["finished_at"]).as_py()
    last_at = None if last is None else last.isoformat()
    num_outcomes = sum(part.num_outcomes for part in plan.parts if part.index not in there)
    if not retry_failed:
        num_failed = sum(failures(folder, timeline, there).values())
        return Remaining(num_outcomes, num_failed=num_failed, last_at=last_at)
    with ThreadPoolExecutor(THREADS) as pool:
        failed = list(pool.map(num_failed_in, map(folder.data_file, done)))
    retried = [part for part, num in zip(done, failed, strict=True) if num]
    return Remaining(num_outcomes + sum(failed), retried, last_at=last_at)


def _work_before(timeline: pa.Table, share: Share | None) -> pa.Table:
    """The work that ended before this start: that of other shares may be going on."""
    if share is None:
        return timeline
    its = timeline["share"]
    is_before = pc.or_kleene(pc.is_null(its), pc.equal(its, str(share)))
    return timeline.filter(is_before)


def is_open(part: Part, folder: RunFolder, retry_failed: bool) -> bool:
    """Whether the part has no file, or, with `retry_failed`, failed rows in its file."""
    file = folder.data_file(part.index)
    return not exists(file) or (retry_failed and num_failed_in(file) > 0)


def num_failed_in(file: Place) -> int:
    """The number of failed rows in an output file: from the null counts in its footer, or, if they
    are missing, from its `error` column."""
    metadata = open_parquet(file).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    stats = [group.column(_column_index(group, "error")).statistics for group in groups]
    if all(its is not None and its.has_null_count for its in stats):
        return int(metadata.num_rows - sum(its.null_count for its in stats))
    return len(failed_places(file))


def failed_places(file: Place) -> list[int]:
    """The places of an output file's failed rows: 0 is its first row."""
    errors = open_parquet(file).read(columns=["error"])["error"]
    places: list[int] = pc.indices_nonzero(pc.is_valid(errors)).to_pylist()
    return places


def replace_rows(old: pa.Table, new: pa.Table, places: Sequence[int]) -> pa.Table:
    """`old` with its rows at `places` replaced, in this order, by the rows of `new`."""
    order = list(range(old.num_rows))
    for row, place in enumerate(places):
        order[place] = old.num_rows + row
    return pa.concat_tables([old, new]).take(order)


def _column_index(group: pq.RowGroupMetaData, name: str) -> int:
    return next(i for i in range(group.num_columns) if group.column(i).path_in_schema == name)
