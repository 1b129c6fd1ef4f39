"""What the workers of a submitted job leave for its supervisor: why they stopped, once, and whether
another start would stop too; and the command that was typed."""

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from engine.errors import UserError
from pipeline.config.slurm import SlurmConfig
from pipeline.failures import exit_with_message
from pipeline.input.errors import InputError, Unreachable, unreadable_is_an_error
from pipeline.run import run
from pipeline.run_folder.at_work import read_launch
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import InUse
from pipeline.run_folder.store import StoreError
from pipeline.slurm.records import Stopped, Submission, stopped, write_submission
from pipeline.slurm.this_start import ThisStart, this_start
from pipeline.workers.ranks import Worker
from pipeline.workers.session import LocalStore, Session
from pipeline.workers.shutdown import Terminated
from tests.checkpoints import job, prompts, write_parquet
from tests.launched import composed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run folder, whose launches are of element 3 of job 1234, after two restarts."""
    monkeypatch.setenv("PIPELINE_SUBMISSION", "1234_3-2")
    monkeypatch.setattr("pipeline.failures.SILENCE_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = RunFolder(tmp_path / "run")
    folder.make()
    return folder


def left(folder: RunFolder) -> list[Stopped]:
    return stopped(folder, 1234, 3, 2)


def stop(folder: RunFolder, error: BaseException, *, session: Session | None = None) -> None:
    session = session or Session(LocalStore(), 0, Worker(rank=5, world=8))
    with pytest.raises(SystemExit), exit_with_message(session, folder):
        raise error


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("1234-0", ThisStart(1234, None, 0)),
        ("1234_3-17", ThisStart(1234, 3, 17)),
        ("", None),
        ("abc", None),
    ],
)
def test_the_start_is_in_the_environment(text: str, start: ThisStart | None) -> None:
    assert this_start({"PIPELINE_SUBMISSION": text}) == start
    assert this_start({}) is None


LASTS: dict[str, Callable[[], Exception]] = {
    "a setting": lambda: UserError("data.path=x: no such file"),
    "a full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "a file that may not be read": lambda: PermissionError(errno.EACCES, "Permission denied", "x"),
    "memory": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "input that may not be read": lambda: torn(errno.EACCES),
    "a bug": lambda: RuntimeError("no such thing"),
}


def torn(code: int) -> Exception:
    """An error of the input that the machine has caused."""
    try:
        with unreadable_is_an_error("/mnt/in.parquet"):
            raise OSError(code, os.strerror(code))
    except InputError as error:
        return error
    raise AssertionError


PASSES: dict[str, Callable[[], Exception]] = {
    "input that cannot be reached": lambda: Unreachable("https://x: does not answer"),
    "a store": lambda: StoreError("cannot write s3://bucket/x: 503"),
    "a network": lambda: OSError(errno.ENETUNREACH, "Network is unreachable"),
    "input on a lost mount": lambda: torn(errno.ESTALE),
    "a lock that a lost machine keeps": lambda: InUse("another launch works in this run folder"),
    "a connection": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset"),
    "a disk": lambda: OSError(errno.EIO, "Input/output error"),
    "a mount": lambda: OSError(errno.ESTALE, "Stale file handle"),
    "a GPU": lambda: torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
}


@pytest.mark.parametrize("what", [*LASTS, *PASSES])
def test_a_rank_that_stops_says_why_and_whether_another_start_would(
    folder: RunFolder, what: str
) -> None:
    stop(folder, (LASTS | PASSES)[what]())
    (said,) = left(folder)
    assert said.rank == 5
    assert said.is_final is (what in LASTS)
    assert said.message


@pytest.mark.parametrize("error", [Terminated(15), Terminated(2), dist.DistError("peer is gone")])
def test_a_rank_that_others_end_says_nothing(folder: RunFolder, error: BaseException) -> None:
    stop(folder, error)
    assert left(folder) == []


def test_only_the_first_rank_to_fail_says_why(folder: RunFolder) -> None:
    store = LocalStore()
    for rank in (4, 2, 3):
        session = Session(store, 0, Worker(rank=rank, world=8))
        stop(folder, RuntimeError(f"of {rank}"), session=session)
    assert [said.rank for said in left(folder)] == [4]


def test_while_torchrun_starts_the_workers_again_only_a_fault_of_the_job_is_told(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setattr("pipeline.failures.launchers_store", lambda worker: LocalStore())
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    stop(folder, RuntimeError("may pass"))
    assert left(folder) == []
    stop(folder, UserError("seed=x: give a number"))
    assert [said.message for said in left(folder)] == ["seed=x: give a number"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    stop(folder, RuntimeError("did not pass"))
    (said,) = left(folder)
    assert "did not pass" in said.message
    assert said.is_final


def test_keys_are_not_in_it(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    stop(folder, UserError("the key hush-hush is wrong"))
    assert [said.message for said in left(folder)] == ["the key $AWS_SECRET_ACCESS_KEY is wrong"]


def test_a_wrong_command_line_is_told_too(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_SUBMISSION_RUN", str(folder.path))
    with pytest.raises(SystemExit):
        composed("conf=demo", "sede=1")
    (said,) = left(folder)
    assert said.is_final
    assert "sede" in said.message
    assert f"pipeline.run stopped: {said.message}" in capfd.readouterr().err


def test_where_it_cannot_be_written_stderr_says_so(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.slurm.this_start.write_stopped", full)
    stop(folder, UserError("seed=x: give a number"))
    said = capfd.readouterr().err
    assert "the message was not recorded for Slurm ([Errno 28] No space left on device)" in said
    assert "pipeline.run stopped: seed=x: give a number" in said


def test_without_slurm_nothing_is_left(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_SUBMISSION")
    stop(folder, UserError("seed=x: give a number"))
    assert not Path(str(folder.slurm)).exists()


def test_what_resumes_a_submitted_run_is_the_line_that_submitted_it(
    checkpoint: Path, folder: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    submission = Submission(
        job_id=1234,
        array=4,
        submitted_at="2026-01-01T00:00:00+00:00",
        submitted_from="login",
        user="u",
        command="python -m jobs.submit conf=mine slurm.array=4",
        working_folder="/home/u",
        folder=str(folder.slurm),
        slurm=asdict(SlurmConfig()),
    )
    write_submission(folder, submission)
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    run(job(checkpoint, data, folder.path, share="0/1", stand_in=True), 0)
    launch = read_launch(folder)
    assert launch is not None
    assert launch.resume_in(folder) == (
        "cd /home/u && python -m jobs.submit conf=mine slurm.array=4"
    )
    said = capfd.readouterr().out
    assert "1 of 1 of the run; the job behind the array writes summary, card and report" in said
    assert left(folder) == []


def test_without_a_record_of_the_submission_it_is_the_launchs_own(
    checkpoint: Path, folder: RunFolder, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    run(job(checkpoint, data, folder.path, stand_in=True), 0)
    launch = read_launch(folder)
    assert launch is not None
    assert sys.orig_argv[-1] in launch.command
