"""Jobs that were submitted with jobs.submit on a real Slurm, from there to their end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UserError
from jobs.slurm.cancellation import cancel_run
from jobs.slurm.submission import submit as submit_words
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import records
from pipeline.slurm.records import Submission
from tests.slurm.cluster import Cluster
from tests.slurm.submitted import PYTHON_HELD, set_environment

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
JOB = [
    *("conf=demo", "stand_in=true", "task=null", "data.limit=12", "data.part_rows=2"),
    *("slurm=cpu", "slurm.ranks_per_node=1", "slurm.cpus_per_node=1", "slurm.memory=null"),
    *("slurm.env=[OMP_NUM_THREADS]", "shutdown_grace_s=3"),
]
NUM_PARTS = 6


@pytest.fixture
def work(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to type commands in, in an environment that speaks with the cluster."""
    set_environment(monkeypatch)
    monkeypatch.setenv("SLURM_CONF", cluster.environment()["SLURM_CONF"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def held_python(work: Path, parts: int) -> str:
    """The setting with which workers wait once so many parts are done."""
    python = work / "python-held"
    python.write_text(PYTHON_HELD.format(python=sys.executable))
    python.chmod(0o755)
    (work / "hold").write_text(str(parts))
    return f"slurm.python='{python}'"


def submit(args: list[str]) -> None:
    assert submit_words(args, ["python", "-m", "jobs.submit", *args]) == 0


def submission(run: str) -> Submission:
    return records.submissions(RunFolder(run))[-1]


def end(cluster: Cluster, label: str) -> str:
    job = cluster.wait(label, until=lambda its: its["JobState"] in ENDED)
    return job["JobState"]


def logs(run: str) -> str:
    files = sorted((Path(run) / "slurm" / "logs").iterdir())
    return "\n".join(f"== {file.name}\n{file.read_text()[-4000:]}" for file in files)


def test_a_job_is_submitted_guarded_while_it_runs_and_finished(
    cluster: Cluster, work: Path
) -> None:
    args = [*JOB, "output=it's a run", held_python(work, 2), "slurm.nodes=2"]
    command = [sys.executable, "-m", "jobs.submit", *args]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done
    record = submission("it's a run")
    assert f": job {record.job_id}, 2 nodes\n" in done.stdout
    with pytest.raises(UserError, match=f"job {record.job_id} is (pending|running)"):
        submit(args)
    (work / "hold").unlink()
    assert end(cluster, str(record.job_id)) == "COMPLETED", logs("it's a run")
    (start,) = records.starts(RunFolder("it's a run"), record.job_id)
    assert (start.outcome, start.nodes) == ("finished", ["node1", "node2"])
    assert json.loads(Path("it's a run/summary.json").read_text())["num_rows_out"] == 12
    launched = json.loads(Path("it's a run/launch.json").read_text())["command"]
    assert launched == record.command, "what resumes the run is what was typed"


def test_a_cancelled_job_ends_and_can_be_submitted_again(
    cluster: Cluster, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = [*JOB, "output=run", held_python(work, 2)]
    submit(args)
    job = str(submission("run").job_id)
    cluster.wait(job, until="RUNNING")
    assert cancel_run("run") == 0
    assert f"cancelled: job {job} is running on node1" in capfd.readouterr().out
    assert end(cluster, job) == "CANCELLED"
    assert submission("run").cancelled_at is not None
    assert cancel_run("run") == 1
    (work / "hold").unlink()
    submit(args)
    assert end(cluster, str(submission("run").job_id)) == "COMPLETED", logs("run")


def test_a_cancelled_array_starts_no_job_behind_it(cluster: Cluster, work: Path) -> None:
    submit([*JOB, "output=run", "slurm.array=2", held_python(work, 2)])
    record = submission("run")
    cluster.wait(f"{record.job_id}_0", until="RUNNING")
    assert cancel_run("run") == 0
    assert end(cluster, str(record.finisher_id)) == "CANCELLED"
    states = {its["JobState"] for its in cluster.jobs(str(record.job_id))}
    assert states <= {"CANCELLED", "COMPLETING"}
    assert records.starts(RunFolder("run"), record.finisher_id or 0) == []


def test_each_job_of_a_sweep_has_a_folder_and_an_id(cluster: Cluster, work: Path) -> None:
    submit(["-m", *JOB, "output=run", "seed=1,2"])
    runs = [f"run/seed={seed}" for seed in (1, 2)]
    ids = [submission(run).job_id for run in runs]
    assert len(set(ids)) == 2
    for run, job in zip(runs, ids, strict=True):
        assert end(cluster, str(job)) == "COMPLETED", logs(run)
        assert len(RunFolder(run).parts_done()) == NUM_PARTS
