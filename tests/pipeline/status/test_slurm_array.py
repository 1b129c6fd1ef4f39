"""`python -m pipeline.status RUN` of a run that was submitted to Slurm as an array."""

from pathlib import Path

import pytest

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


def test_many_elements_are_listed_in_part(a_job: Job, status: Status, slurm: FakeSlurm) -> None:
    submitted(a_job.folder, array=5, finisher_id=1235)
    slurm.says("squeue", "".join(job(1234, "CANCELLED", element=i) for i in range(5)))
    slurm.says("scontrol", err=UNKNOWN_ID, code=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.status.arrays.NUM_ELEMENTS", 2)
        _, lines = status.lines(a_job.folder.path)
    assert [line.split()[1] for line in lines if line.strip().startswith("element ")] == ["0", "1"]
    assert "            and elements 2-4" in lines
