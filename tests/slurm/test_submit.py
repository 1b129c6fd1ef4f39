"""jobs.submit and jobs.cancel on a real Slurm: what it takes, refuses, starts and ends."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.records import Submission, submissions
from tests.slurm.cluster import ROOT, Cluster

DEMO = ("conf=demo", "data.limit=4", "slurm=cpu")
SECRET = "do-not-write-this"


class Shell:
    """The shell of a user on the login node of a cluster, in a folder of its own."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        folder.mkdir()
        self.env = {
            **cluster.environment(),
            "PWD": str(folder),
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(folder / ".config"),
        }

    def __call__(self, module: str, *args: str, code: int = 0) -> str:
        """What `python -m MODULE ARGS` prints, with its errors."""
        done = subprocess.run(
            [sys.executable, "-m", module, *args],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def program(self, name: str, body: str) -> str:
        """A program that stands in for Python on the nodes."""
        file = self.folder / name
        file.write_text(body)
        file.chmod(0o755)
        return str(file)

    def record(self, run: str) -> Submission:
        return submissions(RunFolder(str(self.folder / run)))[-1]

    def queue(self) -> list[str]:
        return self.cluster.run("squeue", "-h", "-o", "%i %T").stdout.split("\n")[:-1]


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Shell:
    return Shell(cluster, tmp_path / "a user's folder")


@pytest.fixture
def sleeper(shell: Shell) -> str:
    return shell.program("sleeper", "#!/bin/sh\nsleep 300\n")


def test_words_and_variables_reach_the_node_as_they_are_and_no_others(shell: Shell) -> None:
    noting = shell.program(
        "the python",
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))\n",
    )
    shell.env |= {
        **{"MY_TOKEN": SECRET, "OTHER": "x", "LANG": "de_DE.UTF-8", "SBATCH_JOB_NAME": "other"},
        **{"SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "3", "SBATCH_EXPORT": "NONE"},
    }
    output = 'runs/it\'s "%j" $x'
    template = "prompt.template=a 'b'\n\r\n\t\\n{prompt} $x `ls`"
    shell(
        "jobs.submit",
        *(*DEMO, f"slurm.python={noting}", f"output={output}", template),
        *("slurm.env=[MY_TOKEN]", "slurm.setup=['export SETUP=\"a b\"']", "slurm.partition=main"),
    )
    record = shell.record(output)
    shell.cluster.wait(str(record.job_id), until="COMPLETED")
    place = shell.folder / output
    log = place / "slurm" / "logs" / f"{record.job_id}.log"
    argv, cwd, env = json.loads(log.read_text())
    assert argv[:4] == ["-m", "jobs.slurm.supervise", str(place), "--"]
    assert argv[4:6] == ["conf=demo", "data.limit=4"]
    assert "\n\r\n\t\\n{prompt} $x `ls`" in argv[6]
    assert cwd == str(shell.folder)
    assert (env["MY_TOKEN"], env["SETUP"], env["LANG"]) == (SECRET, "a b", "de_DE.UTF-8")
    assert env["PYTHONPATH"] == str(ROOT)
    assert env["SLURM_JOB_NAME"] != "other"
    assert not {"OTHER", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"} & set(env)
    log.unlink()
    files = [file for file in place.rglob("*") if file.is_file()]
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
    assert SECRET not in shell.cluster.run("scontrol", "show", "job", str(record.job_id)).stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("slurm.partition=nope",), "slurm.partition=nope: Slurm refuses the job"),
        (("slurm.constraint=ib",), "slurm.constraint=ib: Slurm refuses the job"),
        (("slurm.exclude=nope",), "slurm.exclude=nope: Slurm refuses the job"),
        (("slurm.memory=4000G",), "slurm.memory=4000G: Slurm refuses the job"),
        (("slurm.gpus_per_node=9",), "slurm.gpus_per_node=9, slurm.cpus_per_node=4: Slurm ref"),
        (("slurm.nodes=3",), "slurm.nodes=3, slurm.gpus_per_node=0"),
        (("slurm.after=999999",), "slurm.after=999999: Slurm knows no job 999999"),
        (("slurm.extra=[--no-such]",), "Slurm refuses the job (sbatch: "),
    ],
)
def test_what_the_cluster_lacks_is_told_and_nothing_stays_queued(
    shell: Shell, args: tuple[str, ...], said: str
) -> None:
    message = shell("jobs.submit", *DEMO, *args, code=1)
    (line,) = message.splitlines()
    assert said in line
    shell.cluster.cancel_all()  # waits for what is ending
    assert shell.queue() == []


def test_a_job_for_nodes_that_are_down_now_is_queued(shell: Shell, sleeper: str) -> None:
    shell.cluster.run("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    try:
        shell("jobs.submit", *DEMO, "slurm.nodes=2", f"slurm.python={sleeper}")
        record = shell.record("runs/demo")
        assert shell.cluster.job(str(record.job_id))["JobState"] == "PENDING"
    finally:
        shell.cluster.run("scontrol", "update", "nodename=node2", "state=resume")
    shell.cluster.wait(str(record.job_id), until="RUNNING")


def test_an_array_is_at_work_until_it_is_cancelled_with_the_job_behind_it(
    shell: Shell, sleeper: str
) -> None:
    args = (*DEMO, "slurm.array=3", "slurm.array_at_once=1", f"slurm.python={sleeper}")
    said = shell("jobs.submit", *args)
    record = shell.record("runs/demo")
    assert f"demo: job {record.job_id}, 3 elements" in said
    assert f"then job {record.finisher_id}" in said
    shell.cluster.wait(f"{record.job_id}_0", until="RUNNING")
    behind = shell.cluster.job(str(record.finisher_id))
    assert behind["Dependency"].startswith(f"afterany:{record.job_id}_*")
    assert behind["NumNodes"].partition("-")[0] == "1"

    again = shell("jobs.submit", *args, code=1)
    assert f"job {record.job_id}_0 is running on node" in again
    assert "(and 3 more of it)" in again
    assert len(submissions(RunFolder(str(shell.folder / "runs/demo")))) == 1

    said = shell("jobs.cancel", "runs/demo")
    assert f"cancelled: job {record.job_id}_0 is running on node" in said
    assert f"cancelled: job {record.finisher_id} is pending (Dependency)" in said
    assert f"to go on: cd {shlex.quote(str(shell.folder))} && " in said
    assert shell.record("runs/demo").cancelled_at is not None
    assert shell.queue() == []
    assert "no job of it is queued or running" in shell("jobs.cancel", "runs/demo", code=1)
    shell("jobs.submit", *args)  # what is left
    assert shell.record("runs/demo").job_id > record.job_id


def test_no_run_and_a_run_that_was_not_submitted(shell: Shell) -> None:
    assert "is no run folder; give the job's output" in shell("jobs.cancel", "nowhere", code=1)
    os.makedirs(shell.folder / "runs/x")
    (shell.folder / "runs/x/run.json").write_text("{}")
    assert "was not submitted with jobs.submit" in shell("jobs.cancel", "runs/x", code=1)
