"""`python -m pipeline.report RUN`: of a run at work, a broken one, and with any piece missing."""

from pathlib import Path

import pytest

from pipeline.plan.build import pin
from pipeline.report.__main__ import main, write
from pipeline.report.finish import finish
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.report.test_page import checked


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path) -> Job:
    """A finished job: 10 rows in 3 parts, one of the rows failed."""
    rows = prompts(10)
    rows[0]["prompt"] = None
    a_job = Job(checkpoint, write_parquet(tmp_path / "in.parquet", rows), tmp_path / "run")
    pin(a_job.plan, a_job.folder)
    a_job.run(StandIn(room=3))
    finish(a_job.config, a_job.plan, a_job.folder)
    return a_job


def page_of(a_job: Job) -> tuple[str, list[str]]:
    """The text of the report, and what it says is missing."""
    written, found = write(str(a_job.folder.path))
    text = checked(Path(written).read_text()).text
    gaps = found.missing + found.faults
    assert all(gap in text for gap in gaps)
    assert ("Not in this report" in text) == bool(gaps)
    return text, gaps


def test_a_finished_run(a_job: Job) -> None:
    before = a_job.folder.report_file.read_text()
    text, gaps = page_of(a_job)
    assert gaps == []
    assert "Not finished" not in text
    assert a_job.folder.report_file.read_text() == before, "what the job itself wrote"


def test_a_run_at_work(a_job: Job) -> None:
    for file in (a_job.folder.summary_file, a_job.folder.card_file, a_job.folder.data_file(1)):
        file.unlink()
    text, gaps = page_of(a_job)
    assert gaps == []
    assert "2 of 3 parts are done, 6 of 10 rows, as of 2" in text
    assert "6 generations by" in text
    assert not a_job.folder.summary_file.exists(), "the job writes it when it ends"


def test_a_run_whose_first_part_is_at_work(a_job: Job) -> None:
    for folder in (a_job.folder.data, a_job.folder.stats, a_job.folder.timeline):
        for file in folder.iterdir():
            file.unlink()
    text, gaps = page_of(a_job)
    assert gaps == []
    assert "0 of 3 parts are done, 0 of 10 rows" in text
    assert "no row is done" in text
    assert "threshold 0.3" in " ".join(text.split())


@pytest.mark.parametrize(
    ("file", "content", "gap"),
    [
        ("run.json", None, "the plan: "),
        ("run.json", "{}", "the plan: "),
        ("run.json", "\xff", "the plan: "),
        ("config.yaml", None, "config.yaml: does not exist"),
        ("config.yaml", "- a\n", "the settings: config.yaml holds no settings"),
        ("config.yaml", "a: [", "the settings: "),
        ("scores.json", "{", "the scores: "),
        ("scores.json", "{}", "the scores: "),
        ("starts/start-0001.json", "{", "starts/: "),
        ("starts/start-0001.json", "[]", "starts/: "),
        ("timeline/rank-0000-1.parquet", "torn", "timeline/: "),
        ("data/part-00001.parquet", "torn", "part-00001.parquet cannot be read"),
        ("data/part-00009.parquet", "torn", "part-00009.parquet is not in the plan"),
    ],
)
def test_a_piece_that_is_missing_or_damaged_is_named(
    a_job: Job, file: str, content: str | None, gap: str
) -> None:
    place = a_job.folder.path / file
    if content is None:
        place.unlink()
    else:
        place.write_bytes(content.encode("latin-1"))
    text, gaps = page_of(a_job)
    assert [one for one in gaps if one.startswith(gap)], gaps
    assert "10 generations" in text or "6 generations" in text, "the rest is there"


def test_all_but_the_rows_is_missing(a_job: Job) -> None:
    for file in a_job.folder.path.rglob("*"):
        if file.is_file() and file.parent != a_job.folder.data:
            file.unlink()
    text, _ = page_of(a_job)
    assert "10 generations by an unknown model" in text
    assert "no work is recorded in timeline/" in text
    assert "no settings are recorded" in text


def test_a_folder_that_is_no_run_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SystemExit) as stop:
            main([str(folder)])
        assert stop.value.code == 2
        assert "give the output folder of a job" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_file(a_job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_job.folder.report_file.unlink()
    main([str(a_job.folder.path), "--output", str(tmp_path / "page.html")])
    assert "<h1>test</h1>" in (tmp_path / "page.html").read_text()
    assert not a_job.folder.report_file.exists()
    assert capsys.readouterr().out == f"written: {tmp_path / 'page.html'}\n"


def test_an_output_in_no_folder_is_refused(
    a_job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(a_job.folder.path), "--output", str(tmp_path / "none" / "page.html")])
    assert "page.html: its folder does not exist; make it first" in capsys.readouterr().err
