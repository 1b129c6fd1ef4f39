"""One start of a job as its supervisor sees it through, with Slurm and the workers replaced."""

import errno
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.slurm import supervise
from jobs.slurm.node import NOT_SHARED, NodeEnd
from jobs.slurm.outcome import JobNow
from jobs.slurm.start import SCORING, ThisStart
from jobs.slurm.step import StepEnd, Told
from jobs.slurm.supervise import Supervisor
from pipeline.config.slurm import SlurmConfig
from pipeline.run_folder.layout import RunFolder
from pipeline.slurm import commands, records
from pipeline.slurm.commands import NoSlurm, SlurmError
from pipeline.slurm.records import StartRecord, Stopped, Submission
from tests.end_to_end.launcher import finished

WELL = NodeEnd(node="n1", exit_code=0, was_told=False, is_port_taken=False, at="1")
NUM_PARTS = 4


@pytest.fixture
def complete(done: Path) -> Iterator[Path]:
    """A run that is done and not scored, without the records of other tests."""
    yield done
    for left in [*(done / "slurm").iterdir(), *done.glob("score*")]:
        left.unlink()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("complete")
    args = ["conf=demo", "stand_in=true", "data.limit=8", "data.part_rows=2", "output=run"]
    finished(args, folder, num_workers=1)
    return folder / "run"


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were queued again, in a Slurm that runs all of them."""
    labels: list[str] = []
    monkeypatch.setattr(commands, "requeue", labels.append)
    monkeypatch.setattr(supervise, "nodes_down", lambda nodes: [])
    monkeypatch.setattr(
        supervise, "job_now", lambda label: JobNow(state="RUNNING", reason="None", restarts=0)
    )
    return labels


def work(monkeypatch: pytest.MonkeyPatch, does: Callable[..., StepEnd]) -> None:
    monkeypatch.setattr(supervise, "run_step", does)


def no_work(*_: Any) -> StepEnd:
    raise AssertionError("the workers were started")


def start(run: Path, restart: int = 0, task: str | None = None, **slurm: Any) -> ThisStart:
    """A start of job 7 on one node."""
    config = SlurmConfig(**slurm)
    submission = Submission(
        job_id=7,
        submitted_at="",
        submitted_from="",
        user="",
        command="",
        working_folder="",
        folder=str(run / "slurm"),
        slurm=asdict(config),
        task=task,
        array=slurm.get("array"),
    )
    folder = RunFolder(run)
    records.write_submission(folder, submission)
    return ThisStart(
        folder=folder,
        submission=submission,
        config=config,
        job_id=7,
        element=0 if "array" in slurm else None,
        restart=restart,
        nodes=["n1"],
    )


def record(run: Path, restart: int, parts_before: int, **fields: Any) -> None:
    begun = StartRecord(
        job_id=7, restart=restart, nodes=[], began_at="", parts_before=parts_before, **fields
    )
    records.write_start(RunFolder(run), begun)


def last(run: Path) -> StartRecord:
    return records.starts(RunFolder(run), 7)[-1]


def test_a_start_behind_one_that_was_scoring_scores_and_starts_no_workers(
    complete: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    work(monkeypatch, no_work)
    record(complete, 0, 0, parts_after=NUM_PARTS, why=SCORING)
    assert Supervisor(start(complete, 1, "functions"), Told()).run([]) == 0
    assert (last(complete).outcome, last(complete).why) == ("finished", "all parts are done")
    assert (complete / "scores.json").exists()
    assert requeued == []


def test_scoring_that_fails_ends_the_job(
    complete: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    work(monkeypatch, lambda *_: StepEnd(exit_code=0, nodes=[WELL]))
    config = complete / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("task: functions", "task: none_such"))
    try:
        assert Supervisor(start(complete, 2, "none_such"), Told()).run([]) == 1
    finally:
        config.write_text(text)
    assert last(complete).outcome == "failed"
    assert (last(complete).why or "").endswith(f"again: python -m pipeline.score {complete}")
    assert requeued == []


def test_scoring_that_ends_well_just_before_the_time_limit_counts(
    complete: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    told = Told()

    class Scored:
        returncode = 0

        def __init__(self, command: list[str]) -> None:
            told.warned_at = 0.0

        def poll(self) -> int:
            return 0

    work(monkeypatch, lambda *_: StepEnd(exit_code=0, nodes=[WELL]))
    monkeypatch.setattr(subprocess, "Popen", Scored)
    assert Supervisor(start(complete, 3, "functions"), told).run([]) == 0
    assert last(complete).outcome == "finished"
    assert requeued == []


def test_scoring_that_the_time_limit_interrupts_is_taken_up_again(
    complete: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    told = Told()

    def work_until_warned(*_: Any) -> StepEnd:
        told.warned_at = 0.0
        return StepEnd(exit_code=0, nodes=[WELL])

    work(monkeypatch, work_until_warned)
    record(complete, 2, 0)
    assert Supervisor(start(complete, 3, "functions"), told).run([]) == 0
    assert last(complete).outcome == "requeued"
    assert (last(complete).why or "").startswith("its time limit came, after ")
    assert requeued == ["7"]


def test_the_workers_get_the_arguments_and_an_element_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    seen: list[list[str]] = []

    def note(its: ThisStart, words: list[str], *_: Any) -> StepEnd:
        seen.append(words)
        return StepEnd(exit_code=1, nodes=[None])

    work(monkeypatch, note)
    Supervisor(start(tmp_path), Told()).run(["conf=demo"])
    Supervisor(start(tmp_path, array=4), Told()).run(["conf=demo"])
    assert seen == [["pipeline.run", "conf=demo"], ["pipeline.run", "conf=demo", "share=0/4"]]
    assert requeued == ["7", "7_0"]
    why = last(tmp_path).why or ""
    assert "the workers did not start (srun ended with exit code 1), after" in why


def test_a_message_of_a_worker_ends_the_job_or_is_the_reason_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    said = Stopped(rank=1, host="n1", message="the disk is full", is_final=True, at="1")
    work(monkeypatch, lambda *_: StepEnd(exit_code=1, nodes=[replace(WELL, exit_code=1)]))
    records.write_stopped(RunFolder(tmp_path), 7, None, 0, said)
    assert Supervisor(start(tmp_path), Told()).run([]) == 1
    assert (last(tmp_path).outcome, last(tmp_path).why) == ("failed", "the disk is full")
    passing = replace(said, message="the store does not answer", is_final=False)
    records.write_stopped(RunFolder(tmp_path), 7, None, 1, passing)
    assert Supervisor(start(tmp_path, 1, max_requeues=5), Told()).run([]) == 1
    assert last(tmp_path).outcome == "stuck"
    assert "start 1: the store does not answer, after" in (last(tmp_path).why or "")
    assert requeued == []


def test_a_folder_that_is_not_shared_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    work(monkeypatch, lambda *_: StepEnd(exit_code=NOT_SHARED, nodes=[None]))
    assert Supervisor(start(tmp_path), Told()).run([]) == 1
    assert last(tmp_path).outcome == "failed"
    assert "on a disk that all nodes share" in (last(tmp_path).why or "")


def test_a_start_behind_two_without_a_part_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    work(monkeypatch, no_work)
    record(tmp_path, 0, 0)
    record(tmp_path, 1, 0, outcome="requeued", why="preempted, after 40 s")
    assert Supervisor(start(tmp_path, 2), Told()).run([]) == 1
    assert last(tmp_path).outcome == "stuck"
    assert requeued == []


def test_a_job_that_jobs_cancel_has_marked_is_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    its = start(tmp_path)

    def cancelled(*_: Any) -> StepEnd:
        records.write_submission(its.folder, replace(its.submission, cancelled_at="now"))
        return StepEnd(exit_code=0, nodes=[replace(WELL, exit_code=1, was_told=True)])

    work(monkeypatch, cancelled)
    Supervisor(its, Told()).run([])
    assert last(tmp_path).outcome == "cancelled"
    assert requeued == []


def test_a_job_that_is_cancelled_after_its_workers_ended_is_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    states = iter(["RUNNING", "RUNNING"])
    monkeypatch.setattr(
        supervise,
        "job_now",
        lambda label: JobNow(state=next(states, "COMPLETING"), reason="None", restarts=0),
    )
    work(monkeypatch, lambda *_: StepEnd(exit_code=1, nodes=[None]))
    assert Supervisor(start(tmp_path), Told()).run([]) == 0
    assert (last(tmp_path).outcome, last(tmp_path).why) == ("cancelled", "cancelled with scancel")
    assert requeued == []


def test_a_job_that_is_cancelled_while_slurm_does_not_answer_is_not_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    its, tries = start(tmp_path), list[str]()

    def away(label: str) -> None:
        tries.append(label)
        records.write_submission(its.folder, replace(its.submission, cancelled_at="now"))
        raise NoSlurm("scontrol: no answer within 60 s")

    monkeypatch.setattr(commands, "requeue", away)
    monkeypatch.setattr(supervise, "PAUSE_S", 0)
    work(monkeypatch, lambda *_: StepEnd(exit_code=1, nodes=[None]))
    assert Supervisor(its, Told()).run([]) == 0
    assert last(tmp_path).outcome == "cancelled"
    assert tries == ["7"]


def test_a_run_folder_that_has_gone_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(folder: RunFolder) -> ThisStart:
        raise OSError(errno.ESTALE, "Stale file handle", str(folder.path))

    monkeypatch.setattr(supervise, "this_start", gone)
    before = {its: signal.getsignal(its) for its in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        assert supervise.main([str(tmp_path), "--"]) == 1
    finally:
        for its, handler in before.items():
            signal.signal(its, handler)
    said = capsys.readouterr().out
    assert said.startswith(f"jobs.slurm: {tmp_path}: ")
    assert said.count("\n") == 1


def test_a_requeue_that_slurm_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requeued: list[str]
) -> None:
    def refuse(label: str) -> None:
        raise SlurmError("scontrol: Requested operation is disabled")

    monkeypatch.setattr(commands, "requeue", refuse)
    work(monkeypatch, lambda *_: StepEnd(exit_code=1, nodes=[None]))
    assert Supervisor(start(tmp_path), Told()).run([]) == 1
    assert last(tmp_path).outcome == "failed"
    assert (last(tmp_path).why or "").endswith("; scontrol: Requested operation is disabled")
