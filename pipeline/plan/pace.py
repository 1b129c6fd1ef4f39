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

from pipeline.config.job import JobConfig
from pipeline.plan.heartbeat import Watch
from pipeline.plan.run_json import Plan, pace_in
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.totals import add_up, read_stats
from pipeline.workers.session import POLL_S

log = logging.getLogger("pipeline")

NUM_FIRST = 64
"""At least."""
TURNOVERS = 2
"""How often the first parts fill each engine: less would time engines that are not full."""


def num_first(config: JobConfig, num_parts: int, num_workers: int) -> int | None:
    """Parts that are timed; None where no other would be left."""
    if config.data.part_minutes is None:
        return None
    of_a_worker = -(-TURNOVERS * config.engine.max_sequences // config.data.part_rows)
    num = max(NUM_FIRST, num_workers * of_a_worker)
    return num if num < num_parts else None


def decide(plan: Plan, folder: RunFolder, part_minutes: float, watch: Watch) -> int:
    """How many parts are joined to one: written to pace.json once some of the first parts are
    done. What stands there already holds."""
    assert plan.num_first is not None, "no parts are to be joined"
    first = range(plan.num_first)
    while not (done := folder.parts_done().intersection(first)) and not watch.is_silent():
        time.sleep(POLL_S)
    outcomes_per_s = _speed(read_stats(folder, done))
    wanted = 60.0 * part_minutes * (outcomes_per_s or 0.0)
    num_joined = max(1, round(wanted * len(plan.parts) / plan.num_outcomes))
    said = {"num_first": plan.num_first, "num_joined": num_joined, "rows_per_s": outcomes_per_s}
    if not folder.write_new_text(folder.pace_file, json.dumps(said, indent=1) + "\n"):
        before = pace_in(folder)
        assert before is not None, f"{folder.pace_file} was there, and is gone"
        num_joined = before
    log.info(
        "data.part_minutes=%g: one worker does %.3g rows/s in the first %d parts; behind them a "
        "part has %d times data.part_rows",
        *(part_minutes, outcomes_per_s or 0.0, plan.num_first, num_joined),
    )
    return num_joined


def _speed(stats: pa.Table) -> float | None:
    """Output rows in a second of a worker that has loaded its model and made its first forward."""
    if not stats.num_rows:
        return None
    done = add_up(stats)
    before_s = max(done.warm_up_s, done.start_s + done.plan_s + done.load_s)
    rows, seconds = done.num_ok + done.num_failed, done.total_s - before_s
    return rows / seconds if rows and seconds > 0 else None
