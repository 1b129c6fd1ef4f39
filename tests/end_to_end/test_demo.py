"""`make demo` on fewer rows: the models of this repository solve their task, according to the
scorer."""

from pathlib import Path

import pytest

from pipeline.score import score_run
from tests.checkpoints import output_rows
from tests.end_to_end.launcher import finished

NUM_ROWS = 64


@pytest.mark.parametrize("choice", [[], ["model=demo_block"]])
def test_the_demo_solves_its_task(choice: list[str], tmp_path: Path) -> None:
    limits = [f"data.limit={NUM_ROWS}", "data.part_rows=8"]
    said = finished(["conf=demo", *choice, *limits], tmp_path)
    assert "demo is done" in said
    rows = output_rows(tmp_path / "runs" / "demo")
    assert len(rows) == NUM_ROWS
    tokens = sum(row["num_generated_tokens"] for row in rows)
    assert tokens > 2.5 * sum(row["num_iterations"] for row in rows), "tokens per forward"
    summary = score_run(tmp_path / "runs" / "demo")
    assert summary.pass_at[1] >= 0.8
