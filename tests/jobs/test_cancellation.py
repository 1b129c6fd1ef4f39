"""jobs.cancel, with commands in Slurm's place that note how they were called."""

import re
from dataclasses import replace

import pytest

from engine.errors import UserError
from jobs.slurm.alive import alive_of
from jobs.slurm.cancellation import cancel_run
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm.records import submissions, write_submission
from tests.jobs.fake_slurm import DEMO, FakeSlurm, queue, submitted


def test_cancel_marks_the_record_first_and_says_how_to_go_on(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(*DEMO, "slurm.array=3")
    capsys.readouterr()
    slurm.answer("squeue", queue(101, "RUNNING", "node1") + queue(102, "PENDING"))
    seen: list[str | None] = []

    def told(ids: list[int]) -> None:
        (record,) = submissions(RunFolder("runs/demo"))
        seen.append(record.cancelled_at)
        assert ids == [101, 102]
        slurm.answer("squeue", "")

    monkeypatch.setattr("jobs.slurm.cancellation.cancel", told)
    assert cancel_run("runs/demo") == 0
    assert len(seen) == 1
    assert seen[0] is not None
    said = capsys.readouterr().out
    assert "cancelled: job 101 is running on node1" in said
    assert "cancelled: job 102 is pending" in said
    assert re.search(r"to go on: cd \S+ && python -m jobs.submit conf=demo", said)


def test_cancel_says_it_again_to_a_job_that_a_supervisor_has_queued_meanwhile(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(*DEMO)
    answers = iter([queue(101, "COMPLETING", "node1"), queue(101, "PENDING"), "", ""])
    calls: list[list[int]] = []
    slurm.answer("squeue", queue(101, "RUNNING", "node1"))
    monkeypatch.setattr("jobs.slurm.cancellation.cancel", calls.append)
    monkeypatch.setattr("jobs.slurm.cancellation.POLL_S", 0)

    def asked(folder: RunFolder) -> object:
        found = alive_of(folder)
        slurm.answer("squeue", next(answers))
        return found

    monkeypatch.setattr("jobs.slurm.cancellation.alive_of", asked)
    assert cancel_run("runs/demo") == 0
    assert calls == [[101], [101]]


def test_cancel_of_a_run_without_jobs_and_of_no_run(
    slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        cancel_run("nowhere")
    submitted(*DEMO)
    slurm.refuse("squeue", "slurm_load_jobs error: Invalid job id specified")
    assert cancel_run("runs/demo") == 1
    assert "no job of it is queued or running" in capsys.readouterr().out
    assert not slurm.calls("scancel")


def test_cancel_ends_all_submissions_that_live(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(*DEMO)
    (first,) = submissions(RunFolder("runs/demo"))
    write_submission(RunFolder("runs/demo"), replace(first, job_id=99))
    slurm.answer("squeue", queue(99, "COMPLETING") + queue(101, "COMPLETING"))
    monkeypatch.setattr("jobs.slurm.cancellation.WAIT_S", 0.0)
    assert cancel_run("runs/demo") == 0
    assert sorted(slurm.calls("scancel")) == [["101"], ["99"]]


def test_a_job_is_known_again_whatever_the_shell_calls_its_user(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = queue(101, "RUNNING", "node1")
    monkeypatch.setenv("LOGNAME", "somebody_else")
    submitted(*DEMO)
    slurm.answer("squeue", running)
    assert [its.label for _, jobs in alive_of(RunFolder("runs/demo")) for its in jobs] == ["101"]
