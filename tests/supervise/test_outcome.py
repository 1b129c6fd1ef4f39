"""What becomes of a job when a start has ended, for everything that may have happened."""

from dataclasses import replace

import pytest

from jobs.slurm.outcome import JobNow, Known, Verdict, stuck_before, verdict
from pipeline.slurm.records import StartRecord

RUNNING = JobNow(state="RUNNING", reason="None", restarts=1)
COMPLETING = replace(RUNNING, state="COMPLETING")
KNOWN = Known(restart=1, cause="preempted, after 40 s", parts_before=3, parts_after=5, job=RUNNING)
"""Start 1, interrupted after two parts."""


def start(restart: int, parts_before: int, why: str | None = None) -> StartRecord:
    return StartRecord(
        job_id=7, restart=restart, nodes=[], began_at="", parts_before=parts_before, why=why
    )


def test_an_interrupted_job_is_queued_again() -> None:
    wanted = Verdict(outcome="requeued", why="preempted, after 40 s", requeues=True)
    assert verdict(KNOWN) == wanted
    assert wanted.exit_code == 0


def test_a_fault_of_the_jobs_own_ends_it_even_if_all_parts_are_done() -> None:
    for known in (KNOWN, replace(KNOWN, is_done=True), replace(KNOWN, is_cancelled=True)):
        found = verdict(replace(known, final="task='x': unknown"))
        assert found == Verdict(outcome="failed", why="task='x': unknown")
        assert found.exit_code == 1


@pytest.mark.parametrize("job", [RUNNING, COMPLETING, None])
def test_a_job_whose_work_is_done_is_finished_whatever_slurm_does(job: JobNow | None) -> None:
    found = verdict(replace(KNOWN, is_done=True, is_terminated=True, job=job))
    assert (found.outcome, found.requeues, found.exit_code) == ("finished", False, 0)


def test_a_cancelled_job_is_not_queued_again() -> None:
    by_us = verdict(replace(KNOWN, is_cancelled=True))
    assert by_us == Verdict(outcome="cancelled", why="cancelled with jobs.cancel")
    for is_terminated in (True, False):  # the step may end before SIGTERM comes
        known = replace(KNOWN, job=COMPLETING, is_terminated=is_terminated)
        assert verdict(known) == Verdict(outcome="cancelled", why="cancelled with scancel")


def test_what_slurm_queues_again_is_left_to_it() -> None:
    known = replace(KNOWN, job=replace(COMPLETING, restarts=2), is_terminated=True)
    assert verdict(known) == Verdict(outcome="requeued", why="preempted, after 40 s")
    no_parts = replace(known, parts_after=3, earlier=[start(0, 3)])
    assert verdict(no_parts).outcome == "requeued"  # the next start sees that it is stuck
    assert verdict(replace(known, is_cancelled=True)).outcome == "cancelled"


def test_a_job_whose_time_is_up_is_queued_again() -> None:
    late = replace(KNOWN, job=replace(COMPLETING, reason="TimeLimit"), is_terminated=True)
    assert verdict(late).requeues


def test_if_slurm_does_not_answer() -> None:
    assert verdict(replace(KNOWN, job=None)).requeues
    ended = verdict(replace(KNOWN, job=None, is_terminated=True))
    assert (ended.outcome, ended.requeues) == (None, False)


def test_two_starts_in_a_row_without_a_part_are_stuck() -> None:
    nothing = replace(KNOWN, parts_after=3)
    assert verdict(nothing).requeues  # the first one
    assert verdict(replace(nothing, earlier=[start(0, 1)])).requeues  # start 0 finished two
    stuck = replace(nothing, earlier=[start(0, 3, "killed by a cat, after 2 s")])
    assert verdict(stuck) == Verdict(
        outcome="stuck",
        why="two starts in a row finished no part (start 0: killed by a cat, after 2 s; start 1: "
        "preempted, after 40 s)",
    )
    assert verdict(stuck).exit_code == 1
    assert verdict(replace(stuck, parts_after=4)).requeues
    # What is interrupted behind the last part, such as scoring, finishes no part.
    assert verdict(replace(stuck, is_complete=True)).requeues
    # Parts may also vanish: a broken one is set aside.
    assert verdict(replace(stuck, parts_after=2)).outcome == "stuck"


def test_a_time_limit_that_is_too_short_says_what_helps() -> None:
    known = replace(
        KNOWN,
        parts_after=3,
        earlier=[start(0, 3)],
        cause="its time limit came, after 2 min",
        is_too_short=True,
    )
    why = verdict(known).why
    assert "start 0: killed without notice; start 1: its time limit came, after 2 min" in why
    assert why.endswith("raise slurm.time or, in a new run folder, lower data.part_rows")


def test_settings_that_forbid_another_start() -> None:
    never = verdict(replace(KNOWN, requeue=False))
    assert never == Verdict(outcome="failed", why="preempted, after 40 s; slurm.requeue=false")
    last = verdict(replace(KNOWN, max_requeues=1))
    assert last == Verdict(outcome="failed", why="preempted, after 40 s; slurm.max_requeues=1")
    assert verdict(replace(KNOWN, max_requeues=2)).requeues


def test_a_start_behind_two_that_slurm_ended_without_a_part_does_not_begin() -> None:
    assert stuck_before([], 0) is None
    assert stuck_before([start(0, 0)], 0) is None
    assert stuck_before([start(0, 0), start(1, 0)], 1) is None
    assert stuck_before([start(0, 0), start(1, 2)], 2) is None
    again = [start(0, 4), replace(start(1, 4), outcome="finished")]
    assert stuck_before(again, 4) is None
    assert stuck_before([start(0, 1), start(1, 2, "preempted"), start(3, 2)], 2) == (
        "two starts in a row finished no part (start 1: preempted; start 3: killed without notice)"
    )
