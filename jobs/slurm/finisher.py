"""Finishes a run whose parts an array has done: the small job that runs when all its elements have
ended. If parts are missing, it says which, and what became of the elements that were to do them."""

from collections.abc import Sequence

from engine.errors import UserError
from jobs.slurm.start import ThisStart
from pipeline.report.finish import finish_run
from pipeline.slurm import records
from pipeline.slurm.records import StartRecord

NUM_NAMED = 10
"""The message names at most this many parts, and as many elements."""


def all_parts_described(start: ThisStart) -> str | None:
    """Write summary, card and report if all parts are done. Returns why the run is not as it should
    be: parts are missing, or too many rows failed; None if it is."""
    try:
        missing = finish_run(start.folder).missing
    except UserError as error:
        return str(error)
    if not missing:
        return None
    submission = start.submission
    starts = records.starts(start.folder, submission.job_id)
    why = missing_parts(missing, submission.array or 1, starts)
    score = f", python -m pipeline.score {start.folder.path} then scores it"
    return f"{why}{score if submission.task else ''}"


def missing_parts(missing: Sequence[int], num_elements: int, starts: Sequence[StartRecord]) -> str:
    """Which parts are missing, and why, as far as the starts of the array's elements tell."""
    elements = sorted({part % num_elements for part in missing})
    whys = [f"element {its}: {_fate(its, starts)}" for its in elements[:NUM_NAMED]]
    more = [f"and {len(elements) - NUM_NAMED} other elements"] if len(elements) > NUM_NAMED else []
    parts = ", ".join(map(str, missing[:NUM_NAMED])) + ", ..." * (len(missing) > NUM_NAMED)
    return (
        f"{len(missing)} parts are missing ({parts}); {'; '.join([*whys, *more])}. "
        "`python -m pipeline.run` or jobs.submit without slurm.array, with the same settings, does "
        "them and finishes the run"
    )


def _fate(element: int, starts: Sequence[StartRecord]) -> str:
    """What became of an element, from its last start."""
    own = [its for its in starts if its.element == element]
    if not own:
        return "never started"
    last = own[-1]
    if last.outcome is None:
        return f"killed in start {last.restart}"
    if last.outcome == "requeued":
        return f"queued again after start {last.restart} ({last.why}), and did not start"
    return f"{last.outcome} in start {last.restart} ({last.why})"
