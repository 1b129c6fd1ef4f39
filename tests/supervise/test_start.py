"""Which start is this, which parts are its own, and what command runs its workers?"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from jobs.slurm import start as start_module
from jobs.slurm import step
from jobs.slurm.finisher import missing_parts
from jobs.slurm.node import NodeEnd
from jobs.slurm.outcome import JobNow
from jobs.slurm.start import ThisStart, job_now, this_start
from jobs.slurm.step import free_port, srun
from pipeline.config.slurm import SlurmConfig
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import commands, records
from pipeline.slurm.commands import NoSlurm
from pipeline.slurm.records import StartRecord, Submission

SHOWN = (
    "JobId=15 ArrayJobId=13 ArrayTaskId=2 JobName=x UserId=root(0) Priority=1 QOS=(null) "
    "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 "
    "PreemptEligibleTime=2026-11-27T01:14:14 PreemptTime={preempted} Comment=JobState=FAILED \n"
)


def run_of(folder: Path, *, finisher_id: int | None = None, **slurm: Any) -> RunFolder:
    """A run folder with the record of job 13."""
    run = RunFolder(folder)
    submission = Submission(
        job_id=13,
        array=slurm.get("array"),
        finisher_id=finisher_id,
        submitted_at="",
        submitted_from="",
        user="",
        command="",
        working_folder="",
        folder=str(folder / "slurm"),
        slurm=asdict(SlurmConfig(**slurm)),
    )
    records.write_submission(run, submission)
    return run


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*command: str) -> str:
        assert command == ("scontrol", "show", "hostnames", "node[1-2]")
        return "node1\nnode2\n"

    monkeypatch.setattr(commands, "run", answer)


def started(run: RunFolder, **env: str) -> ThisStart:
    return this_start(run, {"SLURM_JOB_NODELIST": "node[1-2]", **env})


def test_a_job_an_element_and_a_finisher(tmp_path: Path) -> None:
    job = started(run_of(tmp_path / "a"), SLURM_JOB_ID="13", SLURM_RESTART_COUNT="2")
    assert (job.label, job.name, job.nodes) == ("13", "13-2", ["node1", "node2"])
    array = run_of(tmp_path / "b", array=4, finisher_id=17)
    element = started(array, SLURM_JOB_ID="15", SLURM_ARRAY_JOB_ID="13", SLURM_ARRAY_TASK_ID="2")
    assert (element.label, element.name) == ("13_2", "13_2-0")
    finisher = started(array, SLURM_JOB_ID="17")
    assert (finisher.label, finisher.name) == ("17", "17-0")


def test_a_process_that_no_submission_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    monkeypatch.setattr(start_module, "RECORD_S", 0.0)
    with pytest.raises(UserError, match="no record of job 14; submit it again"):
        started(run, SLURM_JOB_ID="14")
    with pytest.raises(UserError, match="no job of Slurm's"):
        started(run)


def test_what_slurm_says_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "run", lambda *_: SHOWN.format(preempted="None"))
    assert job_now("13_2") == JobNow(state="RUNNING", reason="None", restarts=1)
    monkeypatch.setattr(commands, "run", lambda *_: SHOWN.format(preempted="2026-11-27T01:14:16"))
    told = job_now("13_2")
    assert told is not None
    assert told.is_preempted

    def silent(*_: str) -> str:
        raise NoSlurm("scontrol: no answer")

    monkeypatch.setattr(commands, "run", silent)
    assert job_now("13_2") is None


def test_srun_runs_one_process_on_each_node(tmp_path: Path) -> None:
    job = started(run_of(tmp_path), SLURM_JOB_ID="13")
    command = srun(job, ["-m", "jobs.slurm.node"])
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert command[-3:] == [sys.executable, "-m", "jobs.slurm.node"]
    own = started(run_of(tmp_path / "own", python="/env/bin/python"), SLURM_JOB_ID="13")
    assert srun(own, ["-m"])[-2:] == ["/env/bin/python", "-m"]


def test_srun_in_a_container(tmp_path: Path) -> None:
    here, run = os.getcwd(), tmp_path / "run"
    image = {"container": "/images/a.sqsh", "container_mounts": ["/data", "/models:/m"]}
    folders = f"{here}:{here},{run}/slurm:{run}/slurm,{run}:{run},/data:/data,/models:/m"
    pyxis = srun(started(run_of(run, **image), SLURM_JOB_ID="13"), ["-m", "jobs.slurm.node"])
    assert pyxis[-6:] == [
        "--container-image=/images/a.sqsh",
        f"--container-mounts={folders}",
        f"--container-workdir={here}",
        *("python", "-m", "jobs.slurm.node"),
    ]
    other = run_of(run, container_runtime="apptainer", python="/opt/python", **image)
    apptainer = srun(started(other, SLURM_JOB_ID="13"), ["-m", "jobs.slurm.node"])
    at = apptainer.index("apptainer")
    assert apptainer[at:] == [
        *("apptainer", "exec", "--nv", "--bind", folders, "--pwd", here, "/images/a.sqsh"),
        *("/opt/python", "-m", "jobs.slurm.node"),
    ]


def test_a_step_is_tried_again_on_another_port_if_its_port_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun is a script that plays the nodes: the port is taken in its first two calls."""
    job = started(run_of(tmp_path), SLURM_JOB_ID="13")
    end = NodeEnd(node="n", exit_code=0, was_told=False, is_port_taken=False, at="")
    well = json.dumps(asdict(end))
    taken = well.replace(": 0", ": 1").replace('taken": false', 'taken": true')
    lines = [
        "#!/bin/bash",
        'for word in "$@"; do case $word in --attempt=*) attempt=${word#*=};; esac; done',
        f"[ $attempt = 2 ] && end='{well}' || end='{taken}'",
        f'for node in 0 1; do echo "$end" > {tmp_path}/slurm/nodes/13-0-$attempt-$node.json; done',
        f'echo "$PIPELINE_SUBMISSION $PIPELINE_SUBMISSION_RUN ${{@: -2}}" >> {tmp_path}/said',
    ]
    script = tmp_path / "srun"
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = step.run_step(job, ["pipeline.run", "conf=demo"], step.Told(), lambda: True)
    assert found.is_well
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [f"13-0 {tmp_path} pipeline.run conf=demo"] * 3


def test_a_free_port_can_be_listened_on() -> None:
    assert free_port() in step.PORTS


def test_missing_parts_are_told_by_element() -> None:
    def of(element: int, restart: int, **fields: Any) -> StartRecord:
        begun = {"nodes": [], "began_at": "", "parts_before": 0}
        return StartRecord(job_id=7, element=element, restart=restart, **begun, **fields)

    starts = [
        of(0, 0, outcome="finished"),
        of(1, 0, outcome="requeued", why="preempted"),
        of(1, 1, outcome="cancelled", why="cancelled with scancel"),
        of(2, 0, outcome="requeued", why="preempted"),
        of(3, 0),
    ]
    said = missing_parts([1, 2, 3, 4, 6], 5, starts)
    assert said.startswith(
        "5 parts are missing (1, 2, 3, 4, 6); element 1: cancelled in start 1 (cancelled with "
        "scancel); element 2: queued again after start 0 (preempted), and did not start; element "
        "3: killed in start 0; element 4: never started. `python -m pipeline.run` or"
    )
    many = missing_parts(list(range(40)), 20, [])
    assert "40 parts are missing (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...); element 0: never" in many
    assert "; and 10 other elements. " in many
