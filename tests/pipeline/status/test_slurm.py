"""`python -m pipeline.status RUN` of a run that was submitted to Slurm."""

import os
from pathlib import Path

import pytest

from pipeline.run_folder.at_work import Launch, write_launch
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.records import Stopped, write_stopped
from pipeline.status.__main__ import WATCH_S
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.slurm.fake_slurm import (
    UNKNOWN_ID,
    FakeSlurm,
    iso,
    job,
    started,
    submitted,
    when,
)
from tests.pipeline.status.command import Status

SUBMIT = "cd '/home/me/my work' && python -m jobs.submit conf=demo slurm=h100x8"


def done(a_job: Job, parts: set[int]) -> RunFolder:
    """The job's folder with these parts done, of 5."""
    a_job.run(StandIn(room=3))
    for part in set(range(5)) - parts:
        a_job.folder.data_file(part).unlink()
    return a_job.folder


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


def test_an_array_is_counted_and_those_that_left_parts_are_named(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    """5 parts and 4 elements: element 0 has the parts 0 and 4."""
    folder = done(a_job, {1})
    submitted(folder, array=4, finisher_id=1235)
    over = {"ended_at": iso(-60)}
    started(folder, element=0, outcome="stuck", why="no part in two starts", **over)
    started(folder, element=1, outcome="finished", **over)
    started(folder, element=2, restart=0, outcome="requeued", why="preempted", **over)
    started(folder, element=2, restart=1)
    started(folder, element=3)
    message = Stopped(rank=0, host="node1", message="no room", is_final=True, at=iso(-61))
    write_stopped(folder, 1234, 0, 0, message)
    logs = Path(str(folder.slurm)) / "logs"
    logs.mkdir()
    (logs / "1234_0.log").write_text("the second start in a row\n")
    states = [job(1234, "FAILED", element=0), job(1234, "COMPLETED", element=1)]
    states += [job(1234, "RUNNING", element=2, nodes="node7", start=when(-9), end="NONE")]
    states += [job(1234, "CANCELLED", element=3), job(1235, "PENDING", reason="Dependency")]
    slurm.says("squeue", "".join(states))
    slurm.says("scontrol", "JobId=1240 ArrayJobId=1234 ArrayTaskId=3 ExitCode=0:15 RunTime=1\n")
    _, lines = status.lines(folder.path)
    text = "\n".join(lines)
    assert (
        "\nslurm       array 1234 of 4: 1 running on node7, 1 finished, 1 failed, 1 cancelled\n"
        "requeued    once: preempted\n"
        "            element 0 failed (start 0 on node1 stuck: no part in two starts; "
        "rank 0 on node1: no room): parts 0, 4 missing\n"
        "            element 3 cancelled (start 0 on node1 was killed; "
        "CANCELLED (it was cancelled), signal 15): parts 3 missing\n"
        f"log         {logs / '1234_0.log'}\n"
        "            | the second start in a row\n"
        "finisher    job 1235 waits: Dependency (for another job to end)\n"
        "do them     once nothing of the array waits or runs: cd '/home/me/my work' && "
        "python -m pipeline.run conf=demo 'output=my run'\n"
    ) in f"{text}\n"


def test_an_array_that_has_ended_says_how_to_do_the_rest(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, {0, 1, 3, 4})
    submitted(folder, array=4, finisher_id=1235)
    elements = [job(1234, "COMPLETED", element=i) for i in (0, 1, 3)]
    elements.append(job(1234, "NODE_FAIL", element=2, end=when(-5)))
    slurm.says("squeue", "".join([*elements, job(1235, "FAILED", end=when(-5))]))
    its = {"ended_at": iso(-6), "outcome": "failed", "why": "1 parts are missing (2); element 2"}
    started(folder, 1235, **its)
    _, lines = status(folder.path)
    assert lines["slurm"] == "array 1234 of 4: 3 finished, 1 failed"
    assert lines["element"].endswith("NODE_FAIL (a node failed)): parts 2 missing")
    assert lines["finisher"] == "job 1235 has ended: FAILED (it failed)"
    assert lines["do"].startswith("cd '/home/me/my work' && python -m pipeline.run conf=demo")


def test_a_finisher_that_broke_without_a_record_is_shown_with_its_log(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, set(range(5)))
    submitted(folder, array=2, finisher_id=1235)
    elements = [job(1234, "COMPLETED", element=i) for i in (0, 1)]
    slurm.says("squeue", "".join([*elements, job(1235, "FAILED", end=when(-5))]))
    log = folder.slurm / "logs" / "1235.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("no module named jobs\n")
    _, lines = status(folder.path)
    assert lines["finisher"] == "job 1235 has ended: FAILED (it failed)"
    assert lines["log"] == str(log)
    assert lines["|"] == "| no module named jobs"


def test_an_array_without_slurm_counts_what_is_recorded(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, {1})
    submitted(folder, array=4, finisher_id=1235)
    started(folder, element=0, ended_at=iso(-60), outcome="failed", why="the disk is full")
    started(folder, element=2)
    _, lines = status(folder.path)
    assert lines["slurm"].startswith("array 1234 of 4: 1 finished, 1 failed, 2 not known; Slurm ca")
    assert "finisher" not in lines


def test_a_summary_that_the_finisher_will_write_is_not_asked_for(
    a_job: Job, status: Status, slurm: FakeSlurm
) -> None:
    folder = done(a_job, set(range(5)))
    submitted(folder, array=2, finisher_id=1235)
    slurm.says("squeue", job(1235, "PENDING", reason="Dependency"))
    _, lines = status(folder.path)
    assert lines["summary"] == "not written yet"


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


def test_many_elements_are_listed_in_part(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    submitted(a_job.folder, array=5, finisher_id=1235)
    slurm.says("squeue", "".join(job(1234, "CANCELLED", element=i) for i in range(5)))
    slurm.says("scontrol", err=UNKNOWN_ID, code=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.status.arrays.NUM_ELEMENTS", 2)
        _, lines = status.lines(a_job.folder.path)
    assert [line.split()[1] for line in lines if line.strip().startswith("element ")] == ["0", "1"]
    assert "            and elements 2-4" in lines


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
