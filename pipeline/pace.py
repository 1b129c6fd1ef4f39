"""How many rows does a worker do in data.part_minutes?

    first parts, of part_rows, timed        | the others, each of `num_joined` parts as planned
    0    1    2   ...                    63 | 64              65              66 ...

Rank 0 decides once its engine is empty again behind the first parts, from the stats rows that stand
then, its own among them; the others wait for it. pace.json keeps what was decided: a later start
goes on with the same parts, and only what lies behind the first depends on it.
"""

import json
import logging
import time

import pyarrow as pa

from pipeline.config import DataConfig
from pipeline.folder import RunFolder
from pipeline.plan import Plan
from pipeline.session import POLL_S
from pipeline.totals import add_up, read_stats

log = logging.getLogger("pipeline")

NUM_FIRST = 64
MAX_OUTCOMES = 1 << 16
"""Of one part, however fast it is: all its rows are in memory until it is written."""


def num_first(data: DataConfig, num_parts: int) -> int | None:
    """Parts that are timed; None where no other would be left."""
    return None if data.part_minutes is None or num_parts <= NUM_FIRST else NUM_FIRST


def decide(plan: Plan, folder: RunFolder, part_minutes: float) -> int:
    """How many parts are joined to one: written to pace.json once some of the first parts are
    done."""
    assert plan.num_first is not None, "no parts are to be joined"
    first = range(plan.num_first)
    while not (done := folder.parts_done().intersection(first)):
        time.sleep(POLL_S)
    outcomes_per_s = _speed(read_stats(folder, done))
    num_joined = 1
    if outcomes_per_s is not None:
        wanted = min(60.0 * part_minutes * outcomes_per_s, MAX_OUTCOMES)
        num_joined = max(1, round(wanted * len(plan.parts) / plan.num_outcomes))
    said = {"num_first": plan.num_first, "num_joined": num_joined, "rows_per_s": outcomes_per_s}
    folder.write_text(folder.pace_file, json.dumps(said, indent=1) + "\n")
    log.info(
        "data.part_minutes=%g: one worker does %.3g rows/s in the first %d parts; behind them a "
        "part has %d times data.part_rows",
        *(part_minutes, outcomes_per_s or 0.0, plan.num_first, num_joined),
    )
    return num_joined


def _speed(stats: pa.Table) -> float | None:
    """Output rows in a second of a worker that has loaded its model."""
    if not stats.num_rows:
        return None
    done = add_up(stats)
    rows = done.num_ok + done.num_failed
    seconds = done.total_s - done.start_s - done.plan_s - done.load_s
    return rows / seconds if rows and seconds > 0 else None
