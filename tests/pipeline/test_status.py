"""`python -m pipeline.status RUN`: during, after, and on a broken run."""

from pathlib import Path

import pytest

from pipeline.finish import finish
from pipeline.plan import pin
from pipeline.status import main
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.test_drive import Job, StandIn, asking_rows


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path) -> Job:
    """20 rows in 5 parts, the first row bad; planned, not begun."""
    rows = prompts(20)
    rows[0]["prompt"] = None
    a_job = Job(checkpoint, write_parquet(tmp_path / "in.parquet", rows), tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    return a_job


class Status:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, run: Path) -> tuple[int, dict[str, str]]:
        """Exit code, and the lines by their name."""
        self._monkeypatch.setattr("sys.argv", ["pipeline.status", str(run)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = self._capsys.readouterr()
        lines = (said.out or said.err).splitlines()
        assert isinstance(stop.value.code, int)
        return stop.value.code, {line.split()[0]: line[12:].strip() for line in lines}


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


def test_rows_count_their_samples(checkpoint: Path, tmp_path: Path, status: Status) -> None:
    """10 input rows in 3 parts of 7, 5 and 2 output rows."""
    data = write_parquet(tmp_path / "in.parquet", asking_rows())
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
