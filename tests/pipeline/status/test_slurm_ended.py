"""`python -m pipeline.status RUN` of a run whose job on Slurm has ended."""

import os
from pathlib import Path

from pipeline.run_folder.at_work import Launch, write_launch
from pipeline.slurm.records import Stopped, write_stopped
from tests.pipeline.generate.test_driver import Job
from tests.pipeline.slurm.fake_slurm import (
    UNKNOWN_ID,
    FakeSlurm,
    iso,
    job,
    started,
    submitted,
    when,
)
from tests.pipeline.status.command import Status, done

SUBMIT = "cd '/home/me/my work' && python -m jobs.submit conf=demo slurm=h100x8"


def test_a_failure_is_told_with_its_rank_its_node_and_the_end_of_its_log(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, {0})
    submitted(folder)
    its = {"nodes": ["node1", "node2"], "ended_at": iso(-30), "parts_after": 1}
    started(folder, restart=1, outcome="failed", why="a rank has stopped for good", **its)
    for rank, host in ((5, "node2.cluster"), (0, "node1")):
        said = f"rank {rank}: decoding.threshold=2: give 0 to 1"
        stop = Stopped(rank=rank, host=host, message=said, is_final=True, at=iso(-40 - rank))
        write_stopped(folder, 1234, None, 1, stop)
    logs = Path(str(folder.slurm)) / "logs"
    logs.mkdir()
    (logs / "1234-0-1.log").write_text("of the first start\n")
    (logs / "1234-1-0.log").write_text("of the other node\n")
    bar = "10%\r20%\r\x1b[31m30%\r\n\n"
    (logs / "1234-1-1.log").write_text("".join(f"line {i}\n" for i in range(20_000)) + bar)
    slurm.says("squeue", job(1234, "FAILED", end=when(-30), reason="NonZeroExitCode"))
    _, lines = status.lines(folder.path)
    text = "\n".join(lines)
    assert "): FAILED (it failed)\n" in text
    assert "\nstopped     start 1 on node1, node2 failed: a rank has stopped for good\n" in text
    place = lines.index(f"log         {logs / '1234-1-1.log'}")
    assert (
        lines[place - 2].strip()
        == "rank 5 on node2.cluster: rank 5: decoding.threshold=2: give 0 to 1"
    )
    tail = [line.strip() for line in lines[place + 1 : place + 11]]
    assert tail == [*(f"| line {i}" for i in range(19_991, 20_000)), "| [31m30%"]
    assert lines[-1] == f"resume      {SUBMIT} slurm.nodes=2 output='my run'"


def test_the_traceback_of_a_torchrun_that_was_told_to_end_is_no_reason(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    """One node's workers fail, and Slurm ends the other node. The host's name is another one than
    Slurm's, so the message does not tell which log is the failed node's."""
    submitted(a_job.folder)
    its = {"nodes": ["node1", "node2"], "ended_at": iso(-30), "outcome": "stuck"}
    started(a_job.folder, **its, why="no part in two starts")
    slurm.says("squeue", job(1234, "FAILED", end=when(-30)))
    logs = Path(str(a_job.folder.slurm)) / "logs"
    logs.mkdir()
    (logs / "1234-0-node1.log").write_text("node1's workers\nTraceback (m)\nRoot Cause\n")
    told = "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15"
    trace = f"Traceback (most recent call last):\n  File ...\n{told}\n"
    (logs / "1234-0-node2.log").write_text(f"node2's workers\n{trace}")
    os.utime(logs / "1234-0-node1.log", (1, 1))
    _, lines = status.lines(a_job.folder.path)
    place = lines.index(f"log         {logs / '1234-0-node1.log'}")
    assert lines[place + 3].strip() == "| Root Cause"
    (logs / "1234-0-node1.log").unlink()
    _, lines = status.lines(a_job.folder.path)
    place = lines.index(f"log         {logs / '1234-0-node2.log'}")
    assert lines[place + 1].strip() == "| node2's workers"
    assert lines[place + 2].startswith("resume")


def test_slurms_word_stands_where_the_job_could_leave_none(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    submitted(a_job.folder)
    started(a_job.folder, nodes=[f"node{i}" for i in range(1, 7)])
    slurm.says("squeue", job(1234, "OUT_OF_MEMORY", end=when(-30), nodes="node[1-6]"))
    slurm.says("scontrol", "JobId=1234 JobState=OUT_OF_MEMORY ExitCode=0:9 RunTime=00:01:00\n")
    _, lines = status(a_job.folder.path)
    assert lines["stopped"] == (
        "start 0 on node1, node2, node3, node4 and 2 more was killed; "
        "OUT_OF_MEMORY (a node's memory did not suffice), signal 9"
    )
    assert lines["log"].startswith("none in ")


def test_a_cancelled_job_says_when_and_how_to_go_on(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    submitted(a_job.folder, cancelled_at=iso(-120))
    started(a_job.folder)
    slurm.says("squeue", job(1234, "CANCELLED", end=when(-110)))
    _, lines = status(a_job.folder.path)
    assert "log" not in lines, "it does not say why"
    assert lines["stopped"].startswith("cancelled with jobs.cancel 20")
    assert lines["resume"].startswith(SUBMIT)


def test_a_job_that_is_cancelled_while_it_waits_to_start_again(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    """With scancel, which leaves no record."""
    submitted(a_job.folder)
    started(a_job.folder, ended_at=iso(-120), outcome="requeued", why="preempted, after 9.5 s")
    slurm.says("squeue", job(1234, "CANCELLED", end=when(-110)))
    _, lines = status(a_job.folder.path)
    assert lines["requeued"] == "once: preempted"
    assert lines["stopped"] == (
        "start 0 on node1 requeued: preempted, after 9.5 s; CANCELLED (it was cancelled)"
    )
    assert "log" not in lines


def test_a_job_that_slurm_has_forgotten_is_told_by_its_records(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    submitted(a_job.folder)
    started(a_job.folder, ended_at=iso(-7200), outcome="stuck", why="no part in two starts")
    slurm.says("squeue", err=UNKNOWN_ID, code=1)
    _, lines = status(a_job.folder.path)
    assert lines["slurm"].startswith(
        "job 1234: Slurm knows no such job any more; start 0 on node1 "
    )
    assert lines["slurm"].endswith("(2 h 0 min ago): stuck")
    assert lines["stopped"] == "start 0 on node1 stuck: no part in two starts"


def test_without_slurm_the_records_alone_speak(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    submitted(a_job.folder)
    started(a_job.folder)
    code, lines = status(a_job.folder.path)
    assert code == 1
    assert "Slurm cannot be asked here (squeue: not found; run this where" in lines["slurm"]
    assert "; start 0 on node1 began 20" in lines["slurm"]
    assert lines["slurm"].endswith(" ago), and no end of it is recorded")
    assert "stopped" not in lines, "it may still run"


def test_scoring_that_fails_is_told_though_all_parts_are_done(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, set(range(5)))
    submitted(folder, 1234)
    slurm.says("squeue", job(1234, "FAILED", end=when(-5)))
    its = {"ended_at": iso(-6), "outcome": "failed", "why": "scoring them failed"}
    started(folder, **its)
    code, lines = status(folder.path)
    assert (code, lines["left"]) == (0, "nothing")
    assert lines["stopped"] == "start 0 on node1 failed: scoring them failed"
    submitted(folder, 1300, array=2, finisher_id=1301, submitted_at=iso(-10))
    elements = "".join(job(1300, "COMPLETED", element=i) for i in range(2))
    slurm.says("squeue", elements + job(1301, "FAILED", end=when(-5)))
    started(folder, 1301, **its)
    _, lines = status(folder.path)
    assert lines["slurm"] == "array 1300 of 2: 2 finished"
    assert lines["finisher"] == "job 1301 has ended: FAILED (it failed): scoring them failed"


def test_the_newest_of_launch_and_submission_resumes_the_run(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    """A later start without Slurm; then a later submission that was cancelled before it began."""
    submitted(a_job.folder, cancelled_at=iso(-300))
    slurm.says("squeue", err=UNKNOWN_ID, code=1)
    launch = Launch(
        command="python -m pipeline.run conf=demo",
        working_folder="/home/me",
        host="login1",
        pid=7,
        started_at=iso(-200),
        num_ranks=1,
    )
    write_launch(a_job.folder, launch)
    assert _resume(a_job, status) == "cd /home/me && python -m pipeline.run conf=demo"
    submitted(a_job.folder, 1300, submitted_at=iso(-100), cancelled_at=iso(-90))
    assert _resume(a_job, status).startswith(SUBMIT)
    assert status(a_job.folder.path)[1]["before"] == "jobs 1234"


def _resume(a_job: Job, status: Status) -> str:
    for place in (*Path(a_job.folder.path).rglob("*"), Path(a_job.folder.path)):
        os.utime(place, (0, 0))
    return status(a_job.folder.path)[1]["resume"]


def test_a_sweeps_command_stands_for_several_runs(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    command = "python -m jobs.submit -m conf=demo decoding=a,b slurm.array=2"
    submitted(a_job.folder, array=2, command=command)
    slurm.says("squeue", job(1234, "CANCELLED", element=0) + job(1234, "COMPLETED", element=1))
    _, lines = status(a_job.folder.path)
    assert lines["do"].startswith("the same command with pipeline.run in place of jobs.submit")


def test_logs_of_a_run_folder_that_was_moved(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    submitted(a_job.folder, folder="/gone/run/slurm")
    started(a_job.folder, ended_at=iso(-60), outcome="failed")
    slurm.says("squeue", err=UNKNOWN_ID, code=1)
    logs = Path(str(a_job.folder.slurm)) / "logs"
    logs.mkdir()
    (logs / "1234-0-0.log").write_text("here\n")
    assert status(a_job.folder.path)[1]["log"] == str(logs / "1234-0-0.log")


def test_gpu_hours_are_told_where_slurm_counts_them(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, {0})
    submitted(folder)
    slurm.says("squeue", job(1234, "RUNNING", start=when(-3600), nodes="node1"))
    slurm.says("sacct", f"1234|{when(-3601)}|{when(-3600)}|Unknown|3600|1|cpu=8,gres/gpu=8\n")
    _, lines = status(folder.path)
    assert lines["GPU"].startswith("8.00 by Slurm's accounting, ")
    assert lines["GPU"].endswith(" tokens per GPU hour")
    slurm.says("sacct", err="Slurm accounting storage is disabled\n", code=1)
    assert "GPU" not in status(folder.path)[1]
