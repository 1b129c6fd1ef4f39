"""GPU hours in summary.json, report.html and the dataset card: Slurm's count or none."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan.build import pin
from pipeline.report.finish import finish
from pipeline.run_folder.files import read_text
from pipeline.stats.starts import Start, identity
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.slurm.fake_slurm import NO_ACCOUNTS, FakeSlurm, iso, submitted, when
from tests.pipeline.stats.timelines import points, write_timeline

HALF_AN_HOUR = "1800|1|cpu=8,gres/gpu=8\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def done(checkpoint: Path, tmp_path: Path) -> Job:
    """A run of 20 rows, submitted to Slurm; not finished."""
    data = write_parquet(tmp_path / "in.parquet", prompts(20))
    a_job = Job(checkpoint, data, tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    a_job.run(StandIn(room=3))
    submitted(a_job.folder)
    return a_job


def finished(done: Job) -> dict[str, Any]:
    return finish(done.config, done.plan, done.folder)


def begun(done: Job, *began: float) -> None:
    """Record that the rows were done by starts so many seconds from now."""
    for number, seconds in enumerate(began, start=1):
        start = Start(number=number, started_at=iso(seconds), num_workers=1, settings={})
        done.folder.write_text(done.folder.start_file(number), json.dumps(asdict(start)))
        rows = [
            row | {"start": number} for row in points(0, time.time() + seconds, 2, num_failed=0)
        ]
        write_timeline(done.folder, f"rank-0000-{number}", rows)


def test_they_stand_in_summary_report_and_card(done: Job, slurm: FakeSlurm) -> None:
    """The last start still runs while the summary is written."""
    slurm.says("sacct", f"1234|{when(-1900)}|{when(-1800)}|Unknown|{HALF_AN_HOUR}")
    summary = finished(done)
    assert summary["gpu_hours"] == pytest.approx(4.0)
    assert summary["tokens_per_gpu_hour"] == summary["num_generated_tokens"] / 4
    told = json.loads(read_text(done.folder.summary_file))
    assert told["gpu_hours"] == pytest.approx(4.0)
    assert "tokens per GPU hour" in read_text(done.folder.report_file)
    assert "- GPU hours: 4.00 by Slurm's accounting" in read_text(done.folder.card_file)


@pytest.mark.parametrize("answer", [NO_ACCOUNTS, None, "nothing"])
def test_no_accounts_are_no_number_and_no_noise(
    done: Job, slurm: FakeSlurm, answer: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    if answer is not None:
        is_refused = answer == NO_ACCOUNTS
        slurm.says("sacct", err=answer if is_refused else "", code=int(is_refused))
    summary = finished(done)
    assert (summary["gpu_hours"], summary["tokens_per_gpu_hour"]) == (None, None)
    assert "GPU hour" not in read_text(done.folder.report_file)
    assert "GPU hour" not in read_text(done.folder.card_file)
    assert capfd.readouterr() == ("", "")


def test_rows_that_were_done_outside_of_slurm_leave_no_number(done: Job, slurm: FakeSlurm) -> None:
    """Their GPUs' time was not counted: tokens per GPU hour would be too many."""
    slurm.says("sacct", f"1234|{when(-3550)}|{when(-3500)}|{when(-1700)}|{HALF_AN_HOUR}")
    begun(done, -3400)
    assert finished(done)["gpu_hours"] == pytest.approx(4.0)
    begun(done, -3400, -60)
    assert finished(done)["gpu_hours"] is None


def test_a_count_stays_where_it_cannot_be_asked_again(done: Job, slurm: FakeSlurm) -> None:
    """As when a run is scored inside a container, which has no sacct."""
    slurm.says("sacct", f"1234|{when(-1900)}|{when(-1800)}|Unknown|{HALF_AN_HOUR}")
    assert finished(done)["identity"] == identity(done.folder)
    (slurm.folder / "sacct").unlink()
    assert finished(done)["gpu_hours"] == pytest.approx(4.0)
    begun(done, -60)
    assert finished(done)["gpu_hours"] is None, "the rows are others now"
