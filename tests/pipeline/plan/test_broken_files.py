"""A part that is cut short, foreign or of no plan is not taken for done: it is said and redone."""

import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.plan.broken_files import set_aside_broken
from pipeline.plan.run_json import load
from pipeline.run import run
from pipeline.run_folder.files import is_whole_parquet
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, output_rows, prompts, write_parquet


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "in.parquet", prompts(18))


@pytest.fixture
def done(checkpoint: Path, data: Path, tmp_path: Path) -> RunFolder:
    """A finished run of 18 rows in 5 parts of 4 rows; the last has 2."""
    run(job(checkpoint, data, tmp_path / "run", stand_in=True), 0)
    return RunFolder(tmp_path / "run")


def cut_short(file: Path, num_bytes: int | None = None) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2 if num_bytes is None else num_bytes])


def without_a_column(file: Path) -> None:
    pq.write_table(pq.read_table(file).drop_columns(["text"]), file)


def with_fewer_rows(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(1), file)


BREAKAGES = {
    "cut short": (cut_short, "is not a complete Parquet file"),
    "without its last byte": (
        lambda f: cut_short(f, f.stat().st_size - 1),
        "is not a complete Parquet file",
    ),
    "empty": (lambda f: cut_short(f, 0), "is not a complete Parquet file"),
    "zeros": (lambda f: f.write_bytes(bytes(f.stat().st_size)), "is not a complete Parquet file"),
    "text": (lambda f: f.write_text("row_id,text\n"), "is not a complete Parquet file"),
    "a broken footer": (
        lambda f: f.write_bytes(f.read_bytes()[:-300] + bytes(292) + f.read_bytes()[-8:]),
        "cannot be read (",
    ),
    "other rows": (with_fewer_rows, "has 3 rows, not 4"),
    "other columns": (without_a_column, "has other columns than planned"),
    "a foreign Parquet file": (
        lambda f: write_parquet(f, prompts(4)),
        "has other columns than planned",
    ),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_the_same_command_redoes_the_part(
    done: RunFolder,
    checkpoint: Path,
    data: Path,
    case: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (whole, breaks), said = (output_rows(Path(done.path)), BREAKAGES[case][0]), BREAKAGES[case][1]
    file = Path(done.data_file(2))
    breaks(file)
    broken = file.read_bytes()
    run(job(checkpoint, data, str(done.path), stand_in=True), 0)
    printed = capfd.readouterr().err
    assert f"pipeline.run: data/part-00002.parquet {said}" in printed
    assert f"moved to {done.broken}; its rows are generated again" in printed
    assert "14 rows done before" in printed
    assert output_rows(Path(done.path)) == whole
    (aside,) = Path(done.broken).iterdir()
    assert aside.read_bytes() == broken, "nothing is lost"
    assert not list(Path(done.path).glob("broken/*.parquet"))


@pytest.mark.parametrize("retry_failed", [False, True])
def test_figures_that_are_cut_short_are_set_aside(
    done: RunFolder,
    checkpoint: Path,
    data: Path,
    retry_failed: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cut_short(Path(done.stats_file(1)))
    cut_short(Path(done.stats_file(3)), 4)
    (timeline,) = Path(done.timeline).iterdir()
    cut_short(timeline)
    run(job(checkpoint, data, str(done.path), stand_in=True, retry_failed=retry_failed), 0)
    out, printed = capfd.readouterr()
    for name in ("stats/part-00001.parquet", "stats/part-00003.parquet", "timeline/rank-0000-"):
        assert f"pipeline.run: {name}" in printed
    assert (
        printed.count("is not a complete Parquet file; the figures are without it: moved to") == 3
    )
    assert out.count("test is done") == 1


def test_failed_rows_are_retried_in_a_part_without_figures(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = prompts(4)
    rows[1]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    changes = {"stand_in": True, "max_failed_fraction": 1.0}
    run(job(checkpoint, data, tmp_path / "run", **changes), 0)
    folder = RunFolder(tmp_path / "run")
    cut_short(Path(folder.stats_file(0)))
    run(job(checkpoint, data, tmp_path / "run", retry_failed=True, **changes), 0)
    assert len(output_rows(tmp_path / "run")) == 4
    assert pq.read_table(folder.stats_file(0)).num_rows == 1


def test_a_part_of_no_plan_is_set_aside(
    done: RunFolder, checkpoint: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = Path(done.data_file(77))
    extra.write_bytes(Path(done.data_file(0)).read_bytes())
    run(job(checkpoint, data, str(done.path), stand_in=True), 0)
    said = capfd.readouterr().err
    assert "data/part-00077.parquet is not in the plan: moved to" in said
    assert "generated again" not in said
    assert not extra.exists()


def test_many_broken_parts_are_counted(
    done: RunFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.plan.broken_files.NUM_NAMED", 2)
    for part in range(5):
        cut_short(Path(done.data_file(part)))
    assert len(set_aside_broken(load(done), done)) == 5
    printed = capfd.readouterr().err.splitlines()
    assert len(printed) == 3
    assert printed[-1].startswith("pipeline.run: 3 more such files: moved to ")
    assert set_aside_broken(load(done), done) == []


def test_sound_files_are_looked_at_quickly(done: RunFolder, tmp_path: Path) -> None:
    """0.3 ms each on a fast core, 0.6 on a slow one; 60,000 parts take less than a minute."""
    plan, content = load(done), Path(done.data_file(0)).read_bytes()
    parts = [replace(plan.parts[0], index=index) for index in range(2_000)]
    folder = RunFolder(tmp_path / "many")
    folder.make()
    for part in parts:
        Path(folder.data_file(part.index)).write_bytes(content)
    began = time.process_time()
    assert set_aside_broken(replace(plan, parts=parts), folder) == []
    assert time.process_time() - began < 3.0


def test_a_table_that_is_whole_is_not_moved(done: RunFolder) -> None:
    assert is_whole_parquet(done.data_file(0))
    other = Path(done.path) / "x.parquet"
    pq.write_table(pa.table({}), other)
    assert is_whole_parquet(other)
    other.write_bytes(b"PAR1PAR1")
    assert not is_whole_parquet(other)
