"""`python -m pipeline.status RUN`: who is at work on the run, and how it is resumed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.report.finish import finish
from pipeline.run_folder.at_work import Launch, write_launch
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.workers.ranks import Worker
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.status.command import Status


def launched(folder: RunFolder, host: str = Worker().host, run_folder: str | None = None) -> None:
    write_launch(
        folder,
        Launch(
            command="torchrun --nproc-per-node=2 -m pipeline.run conf=demo output='my run'",
            working_folder="/home/me/my work",
            host=host,
            pid=7,
            started_at="2026-01-01T00:00:00+00:00",
            num_ranks=2,
            run_folder=run_folder,
        ),
    )


def aged(folder: RunFolder, seconds: float) -> None:
    """As if nothing had been written for so long."""
    for place in (*Path(folder.path).rglob("*"), Path(folder.path)):
        os.utime(place, (time.time() - seconds, time.time() - seconds))


RESUME = (
    "cd '/home/me/my work' && torchrun --nproc-per-node=2 -m pipeline.run conf=demo output='my run'"
)


def test_who_is_at_work(a_job: Job, status: Status) -> None:
    launched(a_job.folder)
    with locked(a_job.folder):
        _, lines = status(a_job.folder.path)
        assert lines["at"].startswith(f"process {os.getpid()} on {Worker().host} since 20")
        assert "; last sign of life " in lines["at"]
        assert "resume" not in lines


@pytest.mark.parametrize("was_locked", [True, False])
def test_a_dead_run_says_since_when_and_how_to_resume_it(
    a_job: Job, status: Status, was_locked: bool
) -> None:
    launched(a_job.folder)
    if was_locked:
        with locked(a_job.folder):
            pass
    aged(a_job.folder, 3 * 3600)
    code, lines = status(a_job.folder.path)
    assert code == 1
    assert lines["at"].startswith("nobody for 3 h 0 min; the last launch was process ")
    assert f" on {Worker().host} since " in lines["at"]
    assert lines["resume"] == RESUME


def test_a_reader_that_closes_the_output_is_no_fault_of_the_network(a_job: Job) -> None:
    """As with `| head`: no message, and the exit code of a program that SIGPIPE ends."""
    out, closed = os.pipe()
    os.close(out)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.status", str(a_job.folder.path)],
        stdout=closed,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(closed)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_moved_run_says_what_changes_in_its_command(
    a_job: Job, status: Status, tmp_path: Path
) -> None:
    old = Path(a_job.folder.path)
    launched(a_job.folder, run_folder=str(old))
    aged(a_job.folder, 3600)
    assert status(old)[1]["resume"] == RESUME
    moved = tmp_path / "elsewhere"
    old.rename(moved)
    _, lines = status(moved)
    assert lines["resume"] == f"{RESUME}, with output={moved}: the run was started as {old}"


def test_a_run_of_before_says_to_type_the_same_command(a_job: Job, status: Status) -> None:
    aged(a_job.folder, 3 * 3600)
    _, lines = status(a_job.folder.path)
    assert lines["at"] == "nobody for 3 h 0 min"
    assert lines["resume"] == "the same command as before"


def test_a_finished_run_needs_no_command(a_job: Job, status: Status) -> None:
    launched(a_job.folder)
    a_job.run(StandIn(room=3))
    _, lines = status(a_job.folder.path)
    assert lines["resume"] == RESUME, "its summary is missing"
    finish(a_job.config, a_job.plan, a_job.folder)
    _, lines = status(a_job.folder.path)
    assert lines["at"].startswith("nobody for ")
    assert "resume" not in lines


def test_a_run_on_another_machine_is_not_called_dead_too_early(a_job: Job, status: Status) -> None:
    launched(a_job.folder, "node-17")
    _, lines = status(a_job.folder.path)
    assert lines["at"].startswith("cannot be seen from this machine; last sign of life ")
    assert "the last launch was process 7 on node-17" in lines["at"]
    assert "resume" not in lines


def test_watching_a_dead_run_ends_and_says_so(a_job: Job, status: Status) -> None:
    launched(a_job.folder)
    aged(a_job.folder, 120)
    code, lines = status.lines(a_job.folder.path, "--watch")
    assert code == 1
    assert lines[-1] == "pipeline.status: nobody is at work on this run, so --watch ends"
    assert lines[-2] == f"resume      {RESUME}"


def test_watching_goes_on_while_a_launcher_may_restart_its_workers(
    a_job: Job, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is at work, but not for long; then the workers are there again and finish."""
    launched(a_job.folder)
    aged(a_job.folder, 30)
    monkeypatch.setattr("time.sleep", lambda _: a_job.run(StandIn(room=3)))
    code, lines = status.lines(a_job.folder.path, "--watch")
    assert code == 0
    assert [line[12:] for line in lines if line.startswith("parts ")][-1] == "5 of 5 done"
