"""What does a start do when its work has ended? One function of what is known then.

a fault of the job's own, or of the settings      failed: another start would end the same way
all parts done (and scored, if the job has a task)    finished
Slurm queues the job again by itself              requeued, and nothing is to be done
cancelled, by jobs.cancel or by scancel           cancelled
anything else (time limit, preemption, a lost
node or worker)                                   requeued, unless it is the second start in a
                                                  row that finished no part (stuck), or
                                                  slurm.requeue or slurm.max_requeues forbid it
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.slurm.records import StartRecord

RUNNING, COMPLETING, TIME_LIMIT = "RUNNING", "COMPLETING", "TimeLimit"
"""States of a job, and a reason, as `scontrol show job` writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNow:
    """What Slurm says of this job or element while its start ends."""

    state: str
    reason: str
    restarts: int
    """How often it was queued again; more than this start's number: it is being queued again."""
    is_preempted: bool = False
    """Whether it has been given notice that another job takes its place."""

    @property
    def is_timed_out(self) -> bool:
        return self.reason == TIME_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known when a start's work has ended, or Slurm has told it to end."""

    restart: int
    """The start's number: 0, 1, ..."""
    is_done: bool = False
    """All parts are done and, if the job has a task, scored."""
    final: str | None = None
    """Why another start would end the same way; None: it need not."""
    cause: str = ""
    """What interrupted the work, in words, if it is not done."""
    is_too_short: bool = False
    """Whether the time limit interrupted it."""
    parts_before: int
    parts_after: int
    is_complete: bool = False
    """All parts are done, and something behind them was interrupted, such as scoring."""
    earlier: Sequence[StartRecord] = ()
    """The starts before this one, oldest first."""
    is_cancelled: bool = False
    """By jobs.cancel."""
    is_terminated: bool = False
    """Slurm has sent SIGTERM: it ends the job."""
    job: JobNow | None
    """None: Slurm does not answer."""
    requeue: bool = True
    max_requeues: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    outcome: str | None
    """As in StartRecord; None: nobody can tell."""
    why: str
    requeues: bool = False
    """Whether the job is to be queued again now."""

    @property
    def exit_code(self) -> int:
        return 0 if self.outcome in ("finished", "requeued", "cancelled") else 1


def verdict(known: Known) -> Verdict:
    """What becomes of a start whose work has ended; see above."""
    if known.final is not None:
        return Verdict(outcome="failed", why=known.final)
    if known.is_done:
        return Verdict(outcome="finished", why="all parts are done")
    if known.is_cancelled:
        return Verdict(outcome="cancelled", why="cancelled with jobs.cancel")
    if known.job is None and known.is_terminated:
        return Verdict(outcome=None, why=f"{known.cause}; Slurm does not answer")
    if known.job is not None and known.job.restarts > known.restart:
        return Verdict(outcome="requeued", why=known.cause)
    if known.job is not None and known.job.state != RUNNING and not known.job.is_timed_out:
        return Verdict(outcome="cancelled", why="cancelled with scancel")
    is_idle = known.parts_after <= known.parts_before and not known.is_complete
    if is_idle and is_stuck(known.earlier[-1:], known.parts_before):
        return Verdict(outcome="stuck", why=_stuck(known))
    if not known.requeue:
        return Verdict(outcome="failed", why=f"{known.cause}; slurm.requeue=false")
    if known.restart >= known.max_requeues:
        return Verdict(
            outcome="failed", why=f"{known.cause}; slurm.max_requeues={known.max_requeues}"
        )
    return Verdict(outcome="requeued", why=known.cause, requeues=True)


def is_stuck(starts: Sequence[StartRecord], parts_now: int) -> bool:
    """Whether none of these starts, the last of which ended with `parts_now`, finished a part.
    False without starts."""
    has_finished = any(its.outcome == "finished" for its in starts)  # and was queued again by hand
    return bool(starts) and not has_finished and parts_now <= starts[0].parts_before


def stuck_before(earlier: Sequence[StartRecord], parts_now: int) -> str | None:
    """Why a start should not begin: the two before it finished no part, and Slurm, which ended
    them, queued the job again by itself. None: it should."""
    if len(earlier) < 2 or not is_stuck(earlier[-2:], parts_now):
        return None
    return _two_starts(*map(_ended, earlier[-2:]))


def _stuck(known: Known) -> str:
    before = known.earlier[-1]
    said = _two_starts(_ended(before), f"start {known.restart}: {known.cause}")
    if not known.is_too_short:
        return said
    return (
        f"{said}. The time limit is too short for one part: raise slurm.time or, in a new run "
        "folder, lower data.part_rows"
    )


def _ended(start: StartRecord) -> str:
    return f"start {start.restart}: {start.why or 'killed without notice'}"


def _two_starts(first: str, second: str) -> str:
    return f"two starts in a row finished no part ({first}; {second})"
