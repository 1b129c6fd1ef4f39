"""What `python -m pipeline.status` says of jobs on a real Slurm: each state with its line."""

import re
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest

from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.queue import ask, cluster_name
from pipeline.slurm.records import StartRecord, Submission, write_start, write_submission
from pipeline.status.slurm_lines import Left
from pipeline.status.submitted import Submissions
from tests.pipeline.status.command import Status
from tests.slurm.cluster import Cluster


class Run:
    """A run folder whose submissions are jobs that sleep, with the records of real ones."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self._log = cluster, RunFolder(folder / "run"), folder / "log"
        self.folder.make()

    def submit(self, *options: str, does: str = "sleep 600", **fields: Any) -> str:
        out = ("-o", str(self._log), "--job-name", "a | job = x", "--requeue")
        job = self.cluster.submit(*out, *options, "--wrap", does)
        submission = Submission(
            job_id=int(job),
            submitted_at=_now(),
            submitted_from="here",
            user=getuser(),
            command="python -m jobs.submit conf=demo slurm.array=3",
            working_folder=str(self._log.parent),
            folder=str(self.folder.slurm),
            slurm={"signal_s": 60, "requeue": True, "max_requeues": 100},
            **{"cluster": "test"} | fields,
        )
        write_submission(self.folder, submission)
        return job

    def started(self, job: str, **fields: Any) -> None:
        values: dict[str, Any] = {"restart": 0, "nodes": ["node1"], "began_at": _now()}
        record = StartRecord(job_id=int(job), parts_before=0, **values | fields)
        write_start(self.folder, record)

    def lines(self, left_s: float | None = None) -> dict[str, str]:
        submissions = Submissions(self.folder)
        submissions.update()
        left = Left(parts=[0, 1, 2, 3], seconds=left_s)
        told = [*submissions.lines(left), *submissions.hours_line(1000)]
        return {name or value.partition(" (")[0]: value for name, value in told}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    return Status(monkeypatch, capsys)


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SLURM_CONF", cluster.environment()["SLURM_CONF"])
    return Run(cluster, tmp_path)


def test_running_then_requeued_then_cancelled(run: Run) -> None:
    job = run.submit("--time=10")
    run.cluster.wait(job, until="RUNNING")
    run.started(job)
    assert [(its.label, its.state) for its in ask([int(job), 99_999])] == [(job, "RUNNING")]
    suffices, too_short = run.lines(60), run.lines(5000)
    assert re.match(rf"job {job} runs on node\d since 20", suffices["slurm"])
    assert suffices["this start"].endswith(" until its time is over, which suffices at this rate")
    assert too_short["this start"].endswith("too short at this rate: 9 more starts after it")
    run.cluster.run("scontrol", "requeue", job)
    run.cluster.wait(job, until="PENDING")
    waiting = run.lines()
    assert waiting["slurm"].startswith(
        f"job {job} waits to start again: BeginTime (for its time to"
    )
    assert "; starts 20" in waiting["slurm"]
    assert waiting["requeued"] == "once: killed by Slurm, or with its node"
    run.cluster.run("scancel", job)
    run.cluster.wait(job, until="CANCELLED")
    assert not any(its.is_live for its in ask([int(job)]))
    assert "): CANCELLED (it was cancelled)" in run.lines()["slurm"]


def test_waiting_for_nodes_for_another_job_and_held(run: Run, tmp_path: Path) -> None:
    run.cluster.wait(run.submit("--nodes=2", "--exclusive"), until="RUNNING")
    others = [Run(run.cluster, tmp_path / name) for name in ("a", "b", "c")]
    behind = others[0].submit("--nodes=2", "--exclusive")
    after = others[1].submit(f"--dependency=afterok:{behind}")
    others[2].submit("--hold")
    for job, reason in ((behind, "Resources"), (after, "Dependency")):  # they change at first
        run.cluster.wait(job, until=lambda its, reason=reason: its["Reason"] == reason)  # type: ignore[misc]
    told = [other.lines()["slurm"] for other in others]
    assert "): Resources (for free nodes or GPUs)" in told[0]
    assert "): Dependency (for another job to end)" in told[1]
    assert "): JobHeld" in told[2]


def test_a_job_that_fails_is_told_with_its_exit_code(run: Run, status: Status) -> None:
    job = run.submit(does="exit 3")
    run.cluster.wait(job, until="FAILED")
    code, lines = status(Path(str(run.folder.path)))
    assert (code, lines["stopped"]) == (1, "FAILED (it failed), exit code 3")
    assert lines["resume"].endswith("&& python -m jobs.submit conf=demo slurm.array=3")


def test_an_array_with_a_finisher(run: Run) -> None:
    """Element 0 has done its part; 1 fails, 2 runs, 3 waits behind `%2`."""
    does = "case $SLURM_ARRAY_TASK_ID in 0) ;; 1) sleep 1; kill -9 $$;; *) sleep 600;; esac"
    finisher = run.submit("--hold")
    job = run.submit("--array=0-3%1", does=does, array=4, finisher_id=int(finisher))
    (run.folder.slurm / f"submission-{finisher}.json").unlink()
    node = run.cluster.wait(f"{job}_2", until="RUNNING")["NodeList"]
    submissions = Submissions(run.folder)
    submissions.update()
    told = dict(submissions.lines(Left(parts=[1, 2, 3, 5], seconds=None)))
    assert told["slurm"] == (
        f"array {job} of 4: 1 running on {node}, 1 pending (JobArrayTaskLimit (for elements before "
        "it: slurm.array_at_once are running)), 1 finished, 1 failed"
    )
    assert told[""] == "element 1 failed (FAILED (it failed), signal 9): parts 1, 5 missing"
    assert told["finisher"].startswith(f"job {finisher} waits: JobHeld")
    assert told["do them"].endswith("&& python -m pipeline.run conf=demo")
    assert "GPU hours" not in told, "there is no accounting here, and no number"


def test_the_cluster_is_known_by_name(run: Run) -> None:
    assert cluster_name() == "test"
    run.submit(cluster="elsewhere")
    assert "Slurm of elsewhere cannot be asked here (squeue: " in run.lines()["slurm"]
