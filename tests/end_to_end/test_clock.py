"""The system clock is changed while a job runs and between two launches: neither rows nor durations
change."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from pipeline.generate.driver import Driver
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.clock import Clock, process_age_s
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import spans_of_starts
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS = {2: 1, 5: -3, 9: 48, 12: -1}
"""Number of parts written -> hours by which the clock is then moved."""


@pytest.fixture
def set_clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON) as traveller:
        yield traveller


def new_process_at_noon(set_clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock.move_to(NOON)
    clock = Clock()
    for module in ("run", "stats.meter"):
        monkeypatch.setattr(f"pipeline.{module}.CLOCK", clock)


def test_a_job_while_the_clock_jumps(
    checkpoint: Path,
    tmp_path: Path,
    set_clock: time_machine.Traveller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(60))
    run(job(checkpoint, data, tmp_path / "steady"), 0)
    config, folder = job(checkpoint, data, tmp_path / "run"), RunFolder(tmp_path / "run")
    write, num_written = Driver._write, 0

    def set_and_write(self: Driver, full: Any) -> None:
        nonlocal num_written
        set_clock.shift(timedelta(hours=HOURS.get(num_written, 0)))
        num_written += 1
        if num_written == 8:
            raise RuntimeError("broken")
        write(self, full)

    monkeypatch.setattr(Driver, "_write", set_and_write)
    new_process_at_noon(set_clock, monkeypatch)
    began = time.monotonic()
    with pytest.raises(SystemExit):
        run(config, 0)
    new_process_at_noon(set_clock, monkeypatch)  # as if both launches were at the same time
    run(config, 0, start_s=7.0)
    passed_s = time.monotonic() - began + 7.0
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "steady"))
    assert [file.name for file in folder.data.iterdir()].count("part-00000.parquet") == 1
    summary = json.loads(folder.summary_file.read_text())
    assert summary["num_starts"] == 2
    assert summary["total_s"] == pytest.approx(summary["wall_s"], abs=1.0), "of one worker"
    assert 0.5 * passed_s < summary["wall_s"] < passed_s
    spans = spans_of_starts(read_timeline(folder))
    assert len(spans) == 2, "each launch is one span of time"
    assert "48 h" not in folder.report_file.read_text()


def test_a_process_knows_its_age() -> None:
    began, age_s = time.monotonic(), process_age_s()
    assert 0 < age_s < 3600 * 24
    time.sleep(0.05)
    older_s = process_age_s() - age_s
    assert 0.04 < older_s < time.monotonic() - began + 0.02, "the age is counted in 10 ms"
