"""What is left to do: parts without a file, and with `retry_failed=true` the rows that failed in
parts that have one.

Such a part is drawn like any other; only its failed rows go into the engine again, and its file is
replaced, in one move, by one in which these rows are new and all others as they were.
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
from pipeline.run_folder.store import THREADS
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import failures


@dataclass(frozen=True, slots=True)
class Remaining:
    num_outcomes: int = 0
    """Output rows to come."""
    again: list[int] = field(default_factory=list)
    """Parts that have a file, and rows in it that failed and are to be run again."""
    num_failed: int = 0
    """Of the rows that are not to be run again."""
    last_at: str | None = None
    """When a worker last wrote down what it did (ISO 8601)."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Remaining":
        return cls(**json.loads(text))


def find_remaining(plan: Plan, folder: RunFolder, retry_failed: bool) -> Remaining:
    done, timeline = sorted(folder.parts_done()), read_timeline(folder, ["finished_at", "parts"])
    last = pc.max(timeline["finished_at"]).as_py()
    last_at = None if last is None else last.isoformat()
    there = set(done)
    num_outcomes = sum(part.num_outcomes for part in plan.parts if part.index not in there)
    if not retry_failed:
        num_failed = sum(failures(folder, timeline, there).values())
        return Remaining(num_outcomes, num_failed=num_failed, last_at=last_at)
    with ThreadPoolExecutor(THREADS) as pool:
        failed = list(pool.map(num_failed_in, map(folder.data_file, done)))
    again = [part for part, num in zip(done, failed, strict=True) if num]
    return Remaining(num_outcomes + sum(failed), again, last_at=last_at)


def is_open(part: Part, folder: RunFolder, retry_failed: bool) -> bool:
    file = folder.data_file(part.index)
    return not exists(file) or (retry_failed and num_failed_in(file) > 0)


def num_failed_in(file: Place) -> int:
    """Rows of an output file with an error, from its footer alone where that says it."""
    metadata = open_parquet(file).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    stats = [group.column(_place_of(group, "error")).statistics for group in groups]
    if all(its is not None and its.has_null_count for its in stats):
        return int(metadata.num_rows - sum(its.null_count for its in stats))
    return len(failed_places(file))


def failed_places(file: Place) -> list[int]:
    """Which rows of an output file have an error."""
    errors = open_parquet(file).read(columns=["error"])["error"]
    places: list[int] = pc.indices_nonzero(pc.is_valid(errors)).to_pylist()
    return places


def with_new(old: pa.Table, new: pa.Table, places: Sequence[int]) -> pa.Table:
    """`old` with the rows at `places` replaced by those of `new`."""
    order = list(range(old.num_rows))
    for at, place in enumerate(places):
        order[place] = old.num_rows + at
    return pa.concat_tables([old, new]).take(order)


def _place_of(group: pq.RowGroupMetaData, name: str) -> int:
    return next(i for i in range(group.num_columns) if group.column(i).path_in_schema == name)
