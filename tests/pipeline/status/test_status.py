"""`python -m pipeline.status RUN`: during a run, after it, and with broken files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.build import pin
from pipeline.report.finish import finish
from pipeline.report.scores import Scores
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import STATS_SCHEMA, stats_table
from pipeline.stats.starts import identity
from pipeline.status.run_status import RunStatus
from tests.checkpoints import write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn, rows_with_settings
from tests.pipeline.status.command import Status


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


def scored(folder: RunFolder, identity: str, **fields: Any) -> None:
    scores = Scores(
        **{"task": "humaneval", "num_prompts": 10, "num_rows": 20, "num_passed": 9},
        **{"pass_at": {1: 0.45, 2: 0.6}, "reasons": {"passed": 9}, "has_network": False},
        **{"missing_parts": 0, "duration_s": 1.0, "identity": identity} | fields,
    )
    folder.write_text(folder.score_file, scores.to_json())


def test_the_score_is_told_if_it_is_of_these_rows(a_job: Job, status: Status) -> None:
    a_job.run(StandIn(room=3))
    folder = a_job.folder
    assert "score" not in status(folder.path)[1]
    scored(folder, identity(folder))
    told = "pass@1 0.4500, pass@2 0.6000 (9 of 20 rows passed)"
    assert status(folder.path)[1]["score"] == told
    scored(folder, identity(folder), missing_parts=2)
    assert status(folder.path)[1]["score"].endswith("rows passed, without 2 parts)")
    scored(folder, "of-other-rows")
    again = f"of rows before the last start; again: python -m pipeline.score {folder.path}"
    assert status(folder.path)[1]["score"] == again
    folder.write_text(folder.score_file, "torn")
    assert "scores.json cannot be read (JSONDecodeError" in status(folder.path)[1]["score"]
