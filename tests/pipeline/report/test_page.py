"""report.html: self-contained and well-formed for any run, and its charts match the figures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report.finish import finish, summarize
from pipeline.report.outcomes import Outcomes
from pipeline.report.over_time import MAX_INTERVALS, over_time
from pipeline.report.page import report
from pipeline.stats.timeline import TIMELINE_SCHEMA
from pipeline.stats.totals import add_up
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn
from tests.pipeline.stats.timelines import Page, points, table_of

NASTY = '</td><script>alert("x")</script><img src=http://x/y.png>\x1b[31m\n`|` & \u202e "quoted"'
DAY_S = 86400.0


@pytest.fixture
def a_job(checkpoint: Path, tmp_path: Path) -> Job:
    """A job with 10 rows in 3 parts; planned, not started."""
    data = write_parquet(tmp_path / "in.parquet", prompts(10))
    return Job(checkpoint, data, tmp_path / "run", name=NASTY)


def outcomes_of(errors: list[str | None], length: int = 20) -> Outcomes:
    num_rows = len(errors)
    counts: dict[str, Any] = {
        name: pa.array([0 if error else length for error in errors])
        for name in ("num_prompt_tokens", "num_generated_tokens", "num_iterations")
    }
    outcomes = Outcomes()
    outcomes.add(
        pa.table(
            {
                "row_id": [f"in<{i}>" for i in range(num_rows)],
                "sample_index": [0] * num_rows,
                "finish_reason": ["error" if error else "eos" for error in errors],
                "error": pa.array(errors, pa.string()),
                "num_query_tokens": [100] * num_rows,
                **counts,
            }
        )
    )
    return outcomes


def page_of(a_job: Job, outcomes: Outcomes, work: pa.Table) -> tuple[str, Page]:
    summary = summarize(a_job.config, a_job.plan, add_up(work), outcomes)
    html = report(a_job.config, a_job.plan, summary, outcomes, work)
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & set(page.tags), (
        "the page must be self-contained"
    )
    for name, value in page.attrs:
        assert not name.startswith(("href", "src", "on")), (name, value)
    assert not re.search(r"\b(nan|inf)\b", html)
    assert "\x1b" not in html
    return html, page


def test_two_workers_two_starts_and_nasty_errors(a_job: Job) -> None:
    rows = [row for rank in (0, 1) for row in points(rank, 1000.0, 30)]
    rows += [row for rank in (0, 1) for row in points(rank, 1000.0 + DAY_S, 10, num_failed=1)]
    errors = [None] * 6 + [NASTY, "prompt of 12 tokens", "prompt of 340 tokens", "x" * 10_000]
    html, page = page_of(a_job, outcomes_of(errors), table_of(rows))
    assert "A dashed line marks a restart" in page.text
    assert html.count('class="mark"') == 4, "one restart in four charts"
    assert "worker 0" in page.text
    assert "all workers" in page.text
    assert '</td><script>alert("x")</script>' in page.text, "markup is shown as text"
    assert "prompt of 12 tokens" in page.text
    assert "prompt of 340" not in page.text, "it differs only in a number"
    assert "in<7>, in<8>" in page.text
    assert "1 min 20 s" in page.text, "the wall time leaves out the day between the starts"
    assert len(html) < 40_000


def test_a_run_without_a_token_or_a_timeline(a_job: Job) -> None:
    _, page = page_of(a_job, outcomes_of([NASTY] * 10), TIMELINE_SCHEMA.empty_table())
    assert "no row succeeded" in page.text
    assert "no work is recorded in timeline/" in page.text
    assert page.text.count("no work is recorded") == 2, "under Workers too"
    assert "none" in page.text


def test_rows_without_a_token(a_job: Job) -> None:
    rows = points(0, 0.0, 1, num_generated_tokens=0, num_forwards={}, num_iterations=0)
    _, page = page_of(a_job, outcomes_of([None] * 10, length=0), table_of(rows))
    assert "0 to 0 tokens, median 0" in page.text
    assert "nothing was measured" in page.text


def test_the_page_of_a_huge_run_is_not_huge(a_job: Job) -> None:
    rows = [row for rank in range(100) for row in points(rank, 0.0, 300, every_s=60.0)]
    outcomes = outcomes_of([f"{'abcdefghij'[i % 10] * (1 + i // 10)}" for i in range(5000)])
    for length in range(0, 100_000, 7):
        outcomes.prompt_lengths[length] += 1
        outcomes.generated_lengths[length] += 3
    html, page = page_of(a_job, outcomes, table_of(rows))
    assert len(html) < 500_000
    assert "36 more workers" in page.text
    assert len(outcomes.kinds) <= 1001, "the number of kinds of error is bounded too"


def test_intervals_hold_the_work_of_the_points() -> None:
    """Even if the points differ in length and a day lies between two starts."""
    rows = [*points(0, 0.0, 50, every_s=2.0), *points(0, DAY_S, 7, every_s=13.0)]
    rows += points(1, 0.5, 60, every_s=3.0)
    run = over_time(table_of(rows))
    assert run is not None
    assert (run.unit, run.num_workers, len(run.restarts)) == ("minutes", 2, 1)
    assert run.end * 60 == pytest.approx(180.5 + 91)
    assert len(run.xs) <= MAX_INTERVALS
    total = run.tokens_per_s[-1]
    interval_s = run.end * 60 / len(run.xs)
    tokens = sum(value or 0.0 for value in total.values) * interval_s
    assert tokens == pytest.approx(400 * 117, rel=0.02)
    for lines, value in ((run.mean_sequences, 8.0), (run.tokens_per_forward, 5.0)):
        for line in lines:
            known = [v for v in line.values if v is not None]
            np.testing.assert_allclose(known, value)
    worker = run.tokens_per_s[1]
    assert worker.values[-1] is None, "worker 1 is not in the second start"


def test_a_page_that_cannot_be_written_does_not_fail_the_run(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(10))
    a_job = Job(checkpoint, data, tmp_path / "run")
    a_job.run(StandIn(room=3))

    def broken(*args: object) -> str:
        raise ZeroDivisionError("no width")

    monkeypatch.setattr("pipeline.report.finish.report", broken)
    assert finish(a_job.config, a_job.plan, a_job.folder)["num_rows_out"] == 10
    assert "could not be written (ZeroDivisionError: no width)" in capfd.readouterr().err
    assert not a_job.folder.report_file.exists()
    monkeypatch.undo()
    finish(a_job.config, a_job.plan, a_job.folder)
    assert a_job.folder.report_file.exists(), "the same command again writes it"
