"""Makes parts so large that a worker needs about data.part_minutes for one.

    first parts, of part_rows rows, timed   | the rest, each made of `num_joined` planned parts
    0    1    2   ...                    63 | 64              65              66 ...

Rank 0 decides when its engine has run empty after the first parts, from the stats rows that exist
by then, its own among them; the other workers wait. The decision is kept in pace.json, so a resumed
run has the same parts. It changes only the parts after the first ones.
"""

import json
import logging
import time

import pyarrow as pa

from pipeline.config.job import JobConfig
from pipeline.plan.heartbeat import Watch
from pipeline.plan.run_json import Plan, read_num_joined
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.totals import add_up, read_stats
from pipeline.workers.session import POLL_S

log = logging.getLogger("pipeline")

NUM_FIRST = 64
"""At least this many parts are timed."""
TURNOVERS = 2
"""The first parts fill each engine at least this many times. With fewer rows, the engines would be
timed while they are not full."""


def num_first(config: JobConfig, part_rows: int, num_parts: int, num_workers: int) -> int | None:
    """How many parts, of `part_rows` rows, are timed; None if data.part_minutes is not set or no
    other part would be left."""
    if config.data.part_minutes is None:
        return None
    parts_per_worker = -(-TURNOVERS * config.engine.max_sequences // part_rows)
    num = max(NUM_FIRST, num_workers * parts_per_worker)
    return num if num < num_parts else None


def decide(plan: Plan, folder: RunFolder, part_minutes: float, watch: Watch) -> int:
    """How many planned parts are joined into one.

    Waits until at least one of the first parts is done (or nobody is at work on them: then no parts
    are joined), and writes the decision to pace.json. A decision that is already there is kept.
    """
    assert plan.num_first is not None, "no parts are to be joined"
    first = range(plan.num_first)
    while not (done := folder.parts_done().intersection(first)) and not watch.is_silent():
        time.sleep(POLL_S)
    outcomes_per_s = _outcomes_per_s(read_stats(folder, done))
    wanted = 60.0 * part_minutes * (outcomes_per_s or 0.0)
    num_joined = max(1, round(wanted * len(plan.parts) / plan.num_outcomes))
    decision = {"num_first": plan.num_first, "num_joined": num_joined, "rows_per_s": outcomes_per_s}
    if not folder.write_new_text(folder.pace_file, json.dumps(decision, indent=1) + "\n"):
        before = read_num_joined(folder)
        assert before is not None, f"{folder.pace_file} was there, and is gone"
        num_joined = before
    log.info(
        "data.part_minutes=%g: one worker did %.3g rows/s in the first %d parts; each later part "
        "has up to %d times data.part_rows",
        *(part_minutes, outcomes_per_s or 0.0, plan.num_first, num_joined),
    )
    return num_joined


def _outcomes_per_s(stats: pa.Table) -> float | None:
    """Output rows per second of one worker, without the time until its model was loaded and its
    first forward was done; None if nothing was timed."""
    if not stats.num_rows:
        return None
    done = add_up(stats)
    before_s = max(done.warm_up_s, done.start_s + done.plan_s + done.load_s)
    rows, seconds = done.num_ok + done.num_failed, done.total_s - before_s
    return rows / seconds if rows and seconds > 0 else None
