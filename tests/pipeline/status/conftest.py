"""A job, the command that tells of it, and a Slurm that is not there."""

from pathlib import Path

import pytest

from pipeline.plan.build import pin
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job
from tests.pipeline.slurm.fake_slurm import FakeSlurm
from tests.pipeline.status.command import Status


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path) -> Job:
    """A job with 20 rows in 5 parts, the first row bad; planned, not started."""
    rows = prompts(20)
    rows[0]["prompt"] = None
    a_job = Job(checkpoint, write_parquet(tmp_path / "in.parquet", rows), tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    return a_job


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    return Status(monkeypatch, capsys)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)
