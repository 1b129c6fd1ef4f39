"""`python -m pipeline.status RUN` of a run whose job on Slurm waits or runs."""

from pathlib import Path

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.records import Stopped, write_stopped
from pipeline.status.__main__ import WATCH_S
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.slurm.fake_slurm import (
    FakeSlurm,
    iso,
    job,
    started,
    submitted,
    when,
)
from tests.pipeline.status.command import Status, done

SUBMIT = "cd '/home/me/my work' && python -m jobs.submit conf=demo slurm=h100x8"


def test_a_run_that_was_not_submitted_asks_no_slurm(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    slurm.says("squeue", job(1234, "RUNNING"))
    _, lines = status(a_job.folder.path)
    assert not slurm.calls("squeue")
    assert not {"slurm", "requeued", "stopped", "GPU", "before"} & lines.keys()


def test_a_job_that_waits_says_for_what(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    submitted(a_job.folder)
    slurm.says("squeue", job(1234, "PENDING", reason="QOSMaxGRESPerUser", start=when(7230)))
    code, lines = status(a_job.folder.path)
    assert code == 1
    assert lines["slurm"].startswith("job 1234 waits since 20")
    assert "(1 h 0 min ago): QOSMaxGRESPerUser (a limit of its qos is reached)" in lines["slurm"]
    assert lines["slurm"].endswith("(in 2 h 0 min)")
    assert "resume" not in lines, "it needs none: the job starts by itself"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Resources", "Resources (for free nodes or GPUs)"),
        ("ReqNodeNotAvail, UnavailableNodes:node[1-2]", "(for nodes that are down, drained or res"),
        ("AssocGrpGRES", "AssocGrpGRES (a limit of its account is reached)"),
        ("DependencyNeverSatisfied", "it never starts; cancel it"),
        ("AWordOfTomorrow", ": AWordOfTomorrow"),
        ("None", ": no reason given"),
    ],
)
def test_slurms_reason_is_always_shown(
    a_job: Job, status: Status, slurm: FakeSlurm, reason: str, said: str
) -> None:
    submitted(a_job.folder)
    slurm.says("squeue", job(1234, "PENDING", reason=reason))
    _, lines = status(a_job.folder.path)
    assert said in lines["slurm"]


def test_a_job_that_runs_says_where_and_how_often_it_came_back(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = a_job.folder
    submitted(folder)
    started(
        folder,
        restart=0,
        ended_at=iso(-2000),
        outcome="requeued",
        why="its time limit came, after 1 h 3 min",
    )
    started(
        folder,
        restart=1,
        ended_at=iso(-1500),
        outcome="requeued",
        why="its time limit came, after 42 s",
    )
    started(folder, restart=2)  # killed
    started(folder, restart=4)  # start 3 ended before its supervisor began
    running = {"start": when(-7300), "end": when(3630), "limit": "3:00:00"}
    slurm.says("squeue", job(1234, "RUNNING", nodes="node[1-2]", **running))
    _, lines = status(folder.path)
    assert lines["slurm"].startswith("job 1234 runs on node[1-2] since 20")
    assert lines["slurm"].endswith("(2 h 1 min ago)")
    assert lines["requeued"] == (
        "4 times: its time limit came (2); killed by Slurm, or with its node; "
        "for a reason that is not recorded"
    )
    assert lines["this"] == "1 h 0 min until its time is over"
    assert not {"stopped", "log", "resume"} & lines.keys()


def test_a_job_that_scores_says_so(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    submitted(a_job.folder)
    started(a_job.folder, parts_after=5, why="scoring")
    slurm.says("squeue", job(1234, "RUNNING", start=when(-60), nodes="node1"))
    assert status(a_job.folder.path)[1]["slurm"].endswith("): scoring")


def test_a_message_is_told_once(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    """A fault of the job's own is why its start failed, and what a rank said."""
    submitted(a_job.folder)
    fault = "output=runs/x: the disk is full"
    started(a_job.folder, ended_at=iso(-60), outcome="failed", why=fault)
    said = Stopped(rank=3, host="node1", message=fault, is_final=True, at=iso(-61))
    write_stopped(a_job.folder, 1234, None, 0, said)
    slurm.says("squeue", job(1234, "FAILED", end=when(-60)))
    _, lines = status.lines(a_job.folder.path)
    place = lines.index("stopped     start 0 on node1 failed")
    assert lines[place + 1] == f"            rank 3 on node1: {fault}"


@pytest.mark.parametrize(
    ("left_s", "requeue", "most", "said"),
    [
        (60, True, 100, "which suffices at this rate"),
        (4000, True, 100, "too short at this rate: 1 more start after it"),
        # 3630 - 120 s of use are left now, and 7200 - 120 in each start to come
        (3510 + 7080 * 2 + 60, True, 100, "too short at this rate: 3 more starts after it"),
        (40_000, True, 2, "6 more starts after it, and slurm.max_requeues=2 allows 1"),
        (4000, False, 100, "too short at this rate; with slurm.requeue=false it ends then"),
    ],
)
def test_whether_the_time_left_suffices(
    a_job: Job,
    status: Status,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    left_s: float,
    requeue: bool,
    most: int,
    said: str,
) -> None:
    folder = done(a_job, {0, 1})
    submitted(folder, slurm={"requeue": requeue, "max_requeues": most})
    started(folder, restart=1)
    running = {"start": when(-3600), "end": when(3630), "limit": "2:00:00"}
    slurm.says("squeue", job(1234, "RUNNING", nodes="node1", **running))
    monkeypatch.setattr("pipeline.stats.totals.Totals.rows_per_s", 12 / left_s)
    _, lines = status(folder.path)
    assert lines["this"].endswith(said)


def test_no_limit_and_no_rate_say_nothing_of_time(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    submitted(a_job.folder)
    slurm.says("squeue", job(1234, "RUNNING", start=when(-60), end="NONE", nodes="node1"))
    assert "this" not in status(a_job.folder.path)[1]


def test_a_job_of_another_cluster_is_asked_for_there(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    """A number means another job on another cluster."""
    submitted(a_job.folder, cluster="big")
    slurm.says("scontrol", "ClusterName             = small\n")
    slurm.says("squeue", err="squeue: error: Problem talking to database\n", code=1)
    _, lines = status(a_job.folder.path)
    assert slurm.calls("squeue")[0].startswith("--clusters big ")
    assert "Slurm of big cannot be asked here (squeue: Problem" in lines["slurm"]


def test_a_run_that_has_not_begun_shows_its_job(
    tmp_path: Path, status: Status, slurm: FakeSlurm
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    submitted(folder)
    slurm.says("squeue", job(1234, "PENDING", reason="Priority"))
    code, lines = status(folder.path)
    assert (code, lines["run"]) == (1, f"{folder.path}, submitted and not planned yet")
    assert "Priority (behind jobs of higher priority)" in lines["slurm"]
    assert "resume" not in lines
    slurm.says("squeue", job(1234, "FAILED", end=when(-5)))
    slurm.says("scontrol", " ExitCode=1:0 ")
    _, lines = status(folder.path)
    assert lines["stopped"] == "FAILED (it failed), exit code 1"
    assert lines["resume"].startswith(SUBMIT)


def test_watching_waits_for_a_job_that_waits(
    a_job: Job, status: Status, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago anybody was at work. Slurm is asked less often than the files are read."""
    submitted(a_job.folder)
    slurm.says("squeue", job(1234, "PENDING", reason="Resources"))
    monkeypatch.setattr("pipeline.status.run_status.ABANDONED_S", -1.0)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.extend([seconds] if seconds == WATCH_S else [])  # not the waits for squeue's end
        if len(naps) == 5:
            a_job.run(StandIn(room=3))

    monkeypatch.setattr("time.sleep", nap)
    code, _ = status.lines(a_job.folder.path, "--watch")
    assert (code, len(naps), len(slurm.calls("squeue"))) == (0, 5, 1)


def test_watching_ends_when_the_job_has_ended(
    a_job: Job, status: Status, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(a_job.folder)
    slurm.says("squeue", job(1234, "CANCELLED", end=when(-5)))
    monkeypatch.setattr("pipeline.status.run_status.ABANDONED_S", -1.0)
    code, lines = status.lines(a_job.folder.path, "--watch")
    assert (code, lines[-1]) == (
        1,
        "pipeline.status: nobody is at work on this run, so --watch ends",
    )
