"""`make demo` on fewer rows: the models of this repository solve their task, according to the
scorer."""

from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.score import score_run
from tests.checkpoints import output_rows
from tests.end_to_end.launcher import finished
from tests.launched import composed

NUM_ROWS = 64


LIMITS = [f"data.limit={NUM_ROWS}", "data.part_rows=8"]


def test_the_demo_solves_its_task_with_two_workers(tmp_path: Path) -> None:
    assert "demo is done" in finished(["conf=demo", *LIMITS], tmp_path)
    assert_solved(tmp_path / "runs" / "demo")


def test_so_does_the_second_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(composed("conf=demo", "model=demo_block", *LIMITS), 0)
    assert_solved(tmp_path / "runs" / "demo")


def assert_solved(folder: Path) -> None:
    rows = output_rows(folder)
    assert len(rows) == NUM_ROWS
    tokens = sum(row["num_generated_tokens"] for row in rows)
    assert tokens > 2.5 * sum(row["num_iterations"] for row in rows), "tokens per forward"
    summary = score_run(folder)
    assert summary.pass_at[1] >= 0.8
