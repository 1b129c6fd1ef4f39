"""`python -m pipeline.status RUN`: during a run, after it, and with broken files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.build import pin
from pipeline.report.finish import finish
from pipeline.run_folder.at_work import Launch, write_launch
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.stats.meter import STATS_SCHEMA, stats_table
from pipeline.status.__main__ import main
from pipeline.status.run_status import RunStatus
from pipeline.workers.ranks import Worker
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn, rows_with_settings


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path) -> Job:
    """A job with 20 rows in 5 parts, the first row bad; planned, not started."""
    rows = prompts(20)
    rows[0]["prompt"] = None
    a_job = Job(checkpoint, write_parquet(tmp_path / "in.parquet", rows), tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    return a_job


class Status:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, run: Path) -> tuple[int, dict[str, str]]:
        """Exit code, and the value of each line by its first word."""
        code, lines = self.lines(run)
        return code, {line.split()[0]: line[12:].strip() for line in lines}

    def lines(self, run: Path, *flags: str) -> tuple[int, list[str]]:
        """Exit code, and the printed lines."""
        self._monkeypatch.setattr("sys.argv", ["pipeline.status", str(run), *flags])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = self._capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, (printed.out or printed.err).splitlines()


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    return Status(monkeypatch, capsys)


def test_before_the_first_part(a_job: Job, status: Status) -> None:
    code, lines = status(a_job.folder.path)
    assert (code, lines["parts"], lines["left"]) == (1, "0 of 5 done", "parts 0-4")
    assert lines["tokens/s"] == "not known yet"


def test_in_the_middle(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    for part in (1, 3, 4):
        a_job.folder.data_file(part).unlink()
    code, lines = status(a_job.folder.path)
    assert (code, lines["parts"], lines["left"]) == (1, "2 of 5 done", "parts 1, 3-4")
    assert lines["rows"] == "8 of 20 done (40%)"
    assert lines["failed"] == "1"
    assert "tokens/s" in lines


def test_rows_are_output_rows(checkpoint: Path, tmp_path: Path, status: Status) -> None:
    """10 input rows in 3 parts of 7, 5 and 2 output rows."""
    data = write_parquet(tmp_path / "in.parquet", rows_with_settings())
    a_job = Job(checkpoint, data, tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    a_job.run(StandIn(room=3))
    a_job.folder.data_file(1).unlink()
    data.unlink()
    _, lines = status(a_job.folder.path)
    assert lines["rows"] == "9 of 14 done (64%)"


def test_when_all_parts_are_done_and_when_the_summary_is_there(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    code, lines = status(a_job.folder.path)
    assert (code, lines["left"]) == (0, "nothing")
    assert lines["summary"].startswith("missing")
    finish(a_job.config, a_job.plan, a_job.folder)
    _, lines = status(a_job.folder.path)
    assert "written" in lines["summary"]


def test_a_torn_part_is_named_and_counts_as_left(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    a_job.folder.data_file(2).write_bytes(b"torn")
    a_job.folder.stats_file(1).unlink()
    code, lines = status(a_job.folder.path)
    assert (code, lines["parts"], lines["left"]) == (1, "4 of 5 done", "parts 2")
    assert lines["broken"].startswith("part-00002.parquet cannot be read")


def test_a_folder_that_is_no_run(tmp_path: Path, status: Status) -> None:
    code, lines = status(tmp_path)
    assert code == 2
    assert "name the output folder of a run" in lines["pipeline.status:"]


NASTY = "bad \x1b[2J\x07 row\nof <b>3</b> lines\r" + "x" * 500


def failing(folder: RunFolder, part: int, errors: list[str]) -> None:
    """Write these errors into the rows of a part."""
    table = pq.read_table(folder.data_file(part))
    place = table.schema.get_field_index("error")
    column = pa.array(errors, pa.string())
    table = table.set_column(place, table.schema.field(place), column)
    folder.write_table(folder.data_file(part), table)
    rows = pq.read_table(folder.stats_file(part), schema=STATS_SCHEMA).to_pylist()
    folder.write_table(folder.stats_file(part), stats_table(rows[0] | {"num_failed": len(errors)}))


def test_failed_rows_are_counted_by_error_and_listed(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    for file in a_job.folder.timeline.iterdir():
        file.unlink()  # so that the stats rows are used
    failing(a_job.folder, 2, [NASTY, "12 tokens too many", "7 tokens too many", "1 token"])
    code, lines = status.lines(a_job.folder.path, "--failed")
    assert (code, lines[0]) == (0, "5 of 20 finished rows failed")
    assert lines[1] == "       2 x 12 tokens too many"
    listed = lines[lines.index("row_id, sample_index: error") + 1 :]
    assert [line.split(":")[1].split()[0] for line in listed] == ["0", "8", "9", "10", "11"]
    assert listed[1].startswith("in:8 0: bad [2J row of <b>3</b> lines xxx")
    assert listed[1].endswith("xxx...")
    assert all(line.isprintable() for line in lines), "no control codes for the terminal"


def test_a_long_list_of_failed_rows_is_cut(
    a_job: Job, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_job.run(StandIn(room=3))
    for part in range(1, 5):
        failing(a_job.folder, part, [f"{letter} {part}" for letter in "abcd"])
    for file in a_job.folder.timeline.iterdir():
        file.unlink()
    monkeypatch.setattr("pipeline.status.run_status.NUM_ROWS", 6)
    monkeypatch.setattr("pipeline.status.run_status.NUM_KINDS", 2)
    _, lines = status.lines(a_job.folder.path, "--failed")
    assert lines[0] == "17 of 20 finished rows failed"
    assert "and 3 more kinds of error" in lines[3]
    assert lines[-1].startswith("and 11 more rows: ")
    assert len(lines) == 4 + 2 + 6 + 1


def test_a_run_without_failures_lists_none(a_job: Job, status: Status) -> None:
    assert status.lines(a_job.folder.path, "--failed") == (1, ["0 of 0 finished rows failed"])


def test_watching_ends_when_all_is_done(
    a_job: Job, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job runs while the command sleeps between two updates."""
    monkeypatch.setattr("time.sleep", lambda _: a_job.run(StandIn(room=3)))
    code, lines = status.lines(a_job.folder.path, "--watch")
    assert code == 0
    parts = [line for line in lines if line.startswith("parts ")]
    assert [line[12:] for line in parts] == ["0 of 5 done", "5 of 5 done"]


def test_an_interrupt_ends_watching_quietly(
    a_job: Job, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    code, lines = status.lines(a_job.folder.path, "--watch")
    assert (code, lines[2][12:]) == (1, "0 of 5 done")


def test_a_part_is_opened_once(a_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    a_job.run(StandIn(room=3))
    opened: list[Path] = []

    def ends_well(file: Path) -> bool:
        opened.append(file)
        return True

    monkeypatch.setattr("pipeline.status.run_status.is_whole_parquet", ends_well)
    run_status = RunStatus(a_job.plan, a_job.folder)
    assert run_status.update()
    assert run_status.update()
    assert len(opened) == 5


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
