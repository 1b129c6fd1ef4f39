"""How many rows has a part, if data.part_rows is null?

    a few rows      FEW_ROWS
    more            half the square root of the rows: as the job grows, the parts grow with it, and
                    so does their number
    many workers    fewer, so that all workers have parts to the end of the job
    millions        more, so that there are at most MAX_PARTS files
    very many       at most MAX_OUTCOMES output rows, because a part is held in memory

So a kill, which loses the open parts of each worker, loses a small share of the job. The size is
chosen when the run begins and kept in run.json: a resumed run has the same parts on any number of
workers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

import numpy as np

from pipeline.config.job import JobConfig
from pipeline.input.parts import MAX_OUTCOMES
from pipeline.input.row_counts import Counts
from pipeline.plan.run_json import Plan

FEW_ROWS = 8
PARTS_PER_WORKER = 8
"""At least this many, so that no worker waits long for the others at the end."""
MAX_PARTS = 4096
TIMED_ROWS = 32
"""The rows of a first part with data.part_minutes, which decides the size of the others."""


@dataclass(frozen=True, slots=True)
class PartSize:
    rows: int
    """Input rows per part."""
    why: str
    """Why so many; empty if the config says so."""


def given_rows(config: JobConfig, before: Plan | None) -> int | None:
    """The rows of a part, if they are not to be chosen: data.part_rows, else those of the plan
    `before`, whatever its data.part_rows was, else TIMED_ROWS if parts are to be joined."""
    data = config.data
    if data.part_rows is None and before is not None:
        rows: int | None = before.fingerprint.get("data.part_rows")
        return rows
    is_timed = data.part_rows is None and data.part_minutes is not None
    return TIMED_ROWS if is_timed else data.part_rows


def of_rows(num_rows: int, num_outcomes: int, given: int | None, num_workers: int) -> PartSize:
    """The size of the parts of a job with so many input rows and output rows: `given`, or, if that
    is None, chosen. A tensor-parallel group counts as one worker."""
    if given is not None:
        return PartSize(given, "")
    outcomes = max(FEW_ROWS, isqrt(num_outcomes) // 2)
    why = "a kill loses little, and the files are few"
    by_files = -(-num_outcomes // MAX_PARTS)
    if by_files > outcomes:
        outcomes, why = by_files, f"at most {MAX_PARTS:,} files"
    by_workers = num_outcomes // (PARTS_PER_WORKER * num_workers)
    if num_workers > 1 and by_workers < outcomes:
        outcomes, why = by_workers, f"{PARTS_PER_WORKER} parts or more for each worker"
    if outcomes > MAX_OUTCOMES:
        outcomes, why = MAX_OUTCOMES, "a part is held in memory"
    return PartSize(max(1, outcomes * num_rows // max(1, num_outcomes)), why)


def of_counted(
    batches: Iterable[Counts], given: int | None, num_workers: int
) -> tuple[PartSize, Iterable[Counts]]:
    """The size of the parts of rows that are counted one by one, and their counts. If the size is
    to be chosen, all are counted first, and kept in as few bytes as they need."""
    if given is not None:
        return PartSize(given, ""), batches
    kept = [
        (file, first, counts.astype(np.min_scalar_type(counts.max(initial=0))))
        for file, first, counts in batches
    ]
    num_rows = sum(int(np.count_nonzero(counts)) for _, _, counts in kept)
    num_outcomes = sum(int(counts.sum()) for _, _, counts in kept)
    return of_rows(num_rows, num_outcomes, None, num_workers), kept
