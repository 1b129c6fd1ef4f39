"""Timelines: they stay small, lose no work, cannot stop a job, and are read back correctly."""

import errno
from pathlib import Path
from typing import Any

import pytest

from engine.stats import EngineStats
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.meter import CAUSES, WORK, Meter, Work, stats_table
from pipeline.stats.timeline import MAX_POINTS, Timeline, read_timeline, thinned
from pipeline.stats.totals import add_up, failures, read_work
from tests.pipeline.stats.test_meter import ABOUT, outcome
from tests.pipeline.stats.timelines import points, write_timeline


class Clock:
    """Time stands still until a test advances `now`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(f"time.{name}", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.make()
    return folder


def test_seconds_have_one_cause_each(folder: RunFolder, clock: Clock) -> None:
    stats = EngineStats()
    meter = Meter(stats, 1, ABOUT, start_s=2.0, plan_s=3.0, load_s=5.0)
    timeline = Timeline(meter, folder)
    timeline.add_point()
    with meter.clock("read_s"):
        clock.now += 2.0
    clock.now += 4.0
    stats.iteration_s, stats.first_iteration_at = 4.0, 5.0
    stats.num_failed_query_tokens = 70
    with meter.clock("write_s"):
        clock.now += 1.0
        meter.row(0, [outcome(4), outcome(0)])
        timeline.add_point()
        clock.now += 1.0
    clock.now += 0.5
    timeline.finish()
    totals = add_up(read_timeline(folder))
    spent = [getattr(totals, cause) for cause in CAUSES]
    assert spent == [2.0, 3.0, 5.0, 4.0, 0.0, 2.0, 2.0, 0.5]
    assert totals.total_s == sum(spent)
    assert totals.warm_up_s == 15.0, "from the start of the process to the end of the first forward"
    assert (totals.num_starts, totals.num_failed_query_tokens) == (1, 70)


def test_a_long_run_has_as_many_points_as_a_short_one(folder: RunFolder, clock: Clock) -> None:
    stats = EngineStats()
    meter = Meter(stats, 1, ABOUT)
    timeline = Timeline(meter, folder)
    for second in range(5 * MAX_POINTS):
        clock.now += 1.0
        stats.num_iterations += 1
        stats.num_forwards["block"] = 3 * stats.num_iterations
        meter.count(outcome(2))
        meter.row(second, [outcome(2)])
        timeline.add_point_if_due()
    timeline.finish()
    table = read_timeline(folder)
    assert MAX_POINTS / 2 < table.num_rows <= MAX_POINTS
    totals = add_up(table)
    assert (totals.num_iterations, totals.num_generated_tokens) == (5000, 10_000)
    assert (totals.mean_sequences, totals.total_s) == (3.0, 5000.0)
    assert set(table["mean_sequences"].to_pylist()) == {3.0}
    written = [part for parts in table["parts"].to_pylist() for part, _ in parts]
    assert written == list(range(5000))


def test_parts_in_data_have_their_seconds_even_after_a_kill(
    folder: RunFolder, clock: Clock
) -> None:
    """Each part takes 1.25 s, and the timeline is never finished."""
    meter = Meter(EngineStats(), 1, ABOUT)
    timeline = Timeline(meter, folder)
    for part in range(9):
        clock.now += 1.25
        meter.count(outcome(2))
        timeline.add_point_if_due()
        meter.row(part, [outcome(2)])
        timeline.write_before_part()
        table = read_timeline(folder)
        totals = add_up(table)
        assert (totals.num_generated_tokens, totals.total_s) == (2 * part + 2, 1.25 * (part + 1))
        assert failures(folder, table, range(9)) == dict.fromkeys(range(part + 1), 0)
    assert table.num_rows == 5, "writing the file before a part adds no point"


def test_merging_points_keeps_the_sums_and_the_last_time() -> None:
    rows = [{**dict.fromkeys(WORK, 0), **row} for row in points(0, 0.0, 5)]
    for row in rows:
        row |= {"num_forwards": {"block": 80}, "num_query_tokens": {}, "parts": {1: 2}}
    fewer = thinned(rows)
    assert [row["total_s"] for row in fewer] == [4.0, 4.0, 2.0]
    assert fewer[0]["finished_at"] == rows[1]["finished_at"]
    assert fewer[0]["num_forwards"] == {"block": 160}
    assert fewer[0]["tokens_per_forward"] == 5.0


def test_work_can_be_added_and_subtracted() -> None:
    one = Work(num_ok=3, num_forwards={"block": 2}, engine_s=1.0)
    other = Work(num_ok=4, num_forwards={"refresh": 5}, engine_s=0.5)
    both = one + other
    assert (both.num_ok, both.num_forwards) == (7, {"block": 2, "refresh": 5})
    assert (both - other).num_forwards == {"block": 2, "refresh": 0}


def test_a_full_disk_makes_the_timeline_warn_only(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: RunFolder, file: Path, table: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    timeline = Timeline(Meter(EngineStats(), 1, ABOUT), folder)
    monkeypatch.setattr(RunFolder, "write_table", full)
    monkeypatch.setattr("pipeline.workers.logs.log.propagate", True)
    timeline.finish()
    assert "the job continues" in caplog.text


def test_failed_rows_of_a_part_are_those_of_its_last_write(folder: RunFolder) -> None:
    """Part 0 was written twice; part 7 is in no timeline yet, only in stats/."""
    before, after = points(1, 0.0, 1)[0], points(0, 500.0, 1)[0]
    write_timeline(folder, "b", [{**before, "parts": {0: 9, 1: 2}}])
    write_timeline(folder, "a", [{**after, "parts": {0: 1}}])
    row = Meter(EngineStats(), 1, ABOUT).row(7, [outcome(0), outcome(3)])
    folder.write_table(folder.stats_file(7), stats_table(row))
    timeline = read_timeline(folder)
    assert failures(folder, timeline, {0, 1, 7, 8}) == {0: 1, 1: 2, 7: 1}
    assert read_work(folder, [0]).num_rows == 2
