"""report.html: self-contained and well-formed for any run, and its charts match the figures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.job import as_dict
from pipeline.report.charts import line_chart
from pipeline.report.finish import finish
from pipeline.report.found import Found
from pipeline.report.outcomes import Outcomes
from pipeline.report.over_time import GAP_SHARE, MAX_GAPS, MAX_INTERVALS, over_time
from pipeline.report.page import report
from pipeline.report.summary import summarize
from pipeline.stats.formatting import NOT_KEPT, figures
from pipeline.stats.timeline import TIMELINE_SCHEMA
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
    found = Found(
        folder=a_job.folder,
        plan=a_job.plan,
        settings=as_dict(a_job.config),
        work=work,
        outcomes=outcomes,
        parts=[part.index for part in a_job.plan.parts],
    )
    html = report(found, summarize(found))
    return html, checked(html)


def checked(html: str) -> Page:
    """The page, parsed; it must be well-formed and self-contained."""
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & set(page.tags), (
        "the page must be self-contained"
    )
    for name, value in page.attrs:
        assert not name.startswith(("href", "src", "on")), (name, value)
    assert not re.search(r"\b(nan|inf)\b", html)
    assert "\x1b" not in html
    return page


def test_two_workers_two_starts_and_nasty_errors(a_job: Job) -> None:
    rows = [row for rank in (0, 1) for row in points(rank, 1000.0, 30)]
    rows += [row for rank in (0, 1) for row in points(rank, 1000.0 + DAY_S, 10, num_failed=1)]
    errors = [None] * 6 + [NASTY, "prompt of 12 tokens", "prompt of 340 tokens", "x" * 10_000]
    html, page = page_of(a_job, outcomes_of(errors), table_of(rows))
    assert "In a grey gap nobody worked" in page.text
    assert html.count('class="gap"') == 4, "one gap in four charts"
    assert page.text.count("nobody worked for 23 h 59 min") == 4, "the titles of the gaps"
    assert "worker 0 200, worker 1 200" in page.text, "values under the mouse"
    assert "worker 0" in page.text
    assert "all workers" in page.text
    assert '</td><script>alert("x")</script>' in page.text, "markup is shown as text"
    assert "prompt of 12 tokens" in page.text
    assert "prompt of 340" not in page.text, "it differs only in a number"
    assert "in<7>, in<8>" in page.text
    assert "1 min 20 s" in page.text, "the wall time leaves out the day between the starts"
    assert len(html) < 60_000


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
    assert (run.unit, run.num_workers, len(run.gaps)) == ("minutes", 2, 1)
    assert run.run_s == pytest.approx(180.5 + 91)
    assert len(run.edges) <= MAX_INTERVALS
    total, length_s = run.tokens_per_s[-1], run.run_s * (1 + GAP_SHARE)
    amounts = zip(total.values, run.edges, strict=True)
    tokens = sum((value or 0.0) * (high - low) * length_s for value, (low, high) in amounts)
    assert tokens == pytest.approx(400 * 117, rel=0.02)
    for lines, value in ((run.mean_sequences, 8.0), (run.tokens_per_forward, 5.0)):
        for line in lines:
            known = [v for v in line.values if v is not None]
            np.testing.assert_allclose(known, value)
    worker = run.tokens_per_s[1]
    assert worker.values[-1] is None, "worker 1 is not in the second start"


def test_a_line_ends_where_nobody_worked() -> None:
    """Two starts, half a minute apart: the line goes up to the gap, and begins again behind it."""
    rows = [*points(0, 0.0, 20), *points(0, 70.0, 20)]
    run = over_time(table_of(rows))
    assert run is not None
    (gap,) = run.gaps
    assert gap.title == "nobody worked for 30 s"
    assert not any(low < gap.high - 1e-9 and gap.low + 1e-9 < high for low, high in run.edges)
    chart = line_chart(
        "t",
        "",
        run.tokens_per_s,
        x_label="",
        edges=run.edges,
        moments=run.moments,
        ticks=run.ticks,
        gaps=run.gaps,
    )
    assert chart is not None
    (line,) = chart.paths
    xs = [[float(x) for x in re.findall(r"[MLH]([\d.]+)", f"M{d}")] for d in line.d.split("M")[1:]]
    assert [(min(piece), max(piece)) for piece in xs] == [
        (0.0, pytest.approx(1000 * gap.low, abs=0.1)),
        (pytest.approx(1000 * gap.high, abs=0.1), 1000.0),
    ]
    assert chart.boxes[0].title == "at 1.0 s: worker 0 200"


def test_many_restarts_leave_the_page_small_and_the_longest_gaps_drawn() -> None:
    rows = [row for start in range(300) for row in points(0, start * (100.0 + start), 2)]
    run = over_time(table_of(rows))
    assert run is not None
    assert len(run.gaps) == MAX_GAPS
    assert len(run.edges) <= MAX_INTERVALS + MAX_GAPS
    assert run.edges[-1][1] == pytest.approx(1.0)
    assert run.gaps[-1].title == "nobody worked for 11 min 33 s"


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


def test_page_and_terminal_say_the_same_of_query_tokens_without_use(a_job: Job) -> None:
    a_job.run(StandIn(room=3))
    summary = finish(a_job.config, a_job.plan, a_job.folder)
    told = dict(figures(summary))["query tokens without use"]
    shown = a_job.folder.report_file.read_text()
    assert f"results that were not kept ({NOT_KEPT})" in told
    assert f"results not kept: {NOT_KEPT}" in shown
    assert ">lost<" not in shown
