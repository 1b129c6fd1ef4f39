"""Stats rows: each part's row is right, and their sums and rates are those of the whole run."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from engine.request import FinishReason, Result
from engine.stats import EngineStats
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.output_rows import Outcome
from pipeline.stats.meter import STATS_SCHEMA, Meter, stats_table
from pipeline.stats.totals import add_up, read_stats

ABOUT = {"rank": 1, "host": "h", "device": "cpu", "git_revision": None, "versions": {"torch": "2"}}


def outcome(num_tokens: int) -> Outcome:
    reason = FinishReason.LENGTH if num_tokens else FinishReason.ERROR
    result = Result(
        request_id=0,
        finish_reason=reason,
        token_ids=[0] * num_tokens,
        num_prompt_tokens=3,
        seed=0,
    )
    return Outcome(result, None)


def test_parts_add_up_to_what_the_engine_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.make()
    stats = EngineStats()
    meter = Meter(stats, page_bytes=100, about=ABOUT)
    for part in range(2):
        stats.num_iterations += 4
        stats.num_forwards = {"refresh": 2 * (part + 1), "block": 6 * (part + 1)}
        stats.num_query_tokens = {"refresh": 80 * (part + 1)}
        stats.peak_pages = 5 + part
        stats.iteration_s += 0.25
        row = meter.row(part, [outcome(8), outcome(0)])
        folder.write_table(folder.stats_file(part), stats_table(row))
        assert row["mean_sequences"] == 2.0
    totals = add_up(read_stats(folder, [0, 1, 7]))
    assert (totals.num_starts, totals.num_ok, totals.num_failed) == (1, 2, 2)
    assert (totals.num_prompt_tokens, totals.num_generated_tokens) == (12, 16)
    assert totals.num_forwards == {"refresh": 4, "block": 12}
    assert totals.num_query_tokens == {"refresh": 160}
    assert (totals.peak_pages, totals.peak_cache_bytes) == (6, 600)
    assert totals.tokens_per_forward == 1.0
    assert totals.query_tokens_per_token == 10.0
    assert totals.mean_sequences == 2.0
    assert totals.tokens_per_engine_s == 16 / 0.5


def test_reading_and_writing_are_measured_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    stats = EngineStats()
    meter = Meter(stats, page_bytes=1, about=ABOUT)
    with meter.clock("read_s"):
        now += 2
    with meter.clock("write_s"):
        now += 3
    stats.iteration_s = 4.0
    now = 10.0
    row = meter.row(0, [outcome(1)])
    clocks = [row[f"{name}_s"] for name in ("total", "engine", "read", "write", "idle")]
    assert clocks == [10.0, 4.0, 2.0, 3.0, 1.0]
    assert meter.row(1, [outcome(1)])["read_s"] == 0.0


def test_wall_time_counts_parallel_workers_once_and_pauses_never() -> None:
    def row(rank: int, start: float, end: float) -> dict[str, object]:
        return {
            "rank": rank,
            "num_generated_tokens": 60,
            "total_s": end - start,
            "finished_at": datetime.fromtimestamp(end, UTC),
        }

    rows = [row(0, 0, 10), row(1, 2, 8), row(2, 5, 12), row(1, 100, 110), row(0, 100, 104)]
    totals = add_up(pa.Table.from_pylist(rows, schema=STATS_SCHEMA))
    assert totals.wall_s == pytest.approx(22)
    assert totals.tokens_per_s == pytest.approx(300 / 22)
    assert totals.tail_s == pytest.approx((2 + 4 + 0) + (0 + 6)), (
        "each worker waits for the last one of its start"
    )


def test_without_work_there_are_no_rates() -> None:
    totals = add_up(STATS_SCHEMA.empty_table())
    assert totals.tokens_per_s is None
    assert totals.as_dict()["tokens_per_forward"] is None
