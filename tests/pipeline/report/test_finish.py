"""Finishing a run: an incomplete run is refused, and the Hub can read the dataset card."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.job import JobConfig
from pipeline.plan.run_json import Plan
from pipeline.report.finish import check_failures, finish
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import prompts, write_parquet
from tests.pipeline.generate.test_driver import Job, StandIn, rows_with_settings
from tests.pipeline.stats.timelines import points, write_timeline


@pytest.fixture
def done(checkpoint: Path, tmp_path: Path) -> Job:
    """A job whose parts are written: 10 rows in 3 parts, two of the rows failed."""
    rows = prompts(10)
    rows[0]["prompt"] = rows[7]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    a_job = Job(checkpoint, data, tmp_path / "run")
    a_job.run(StandIn(room=3))
    return a_job


def finished(a_job: Job) -> dict[str, Any]:
    return finish(a_job.config, a_job.plan, a_job.folder)


def test_the_summary_counts_every_row(done: Job) -> None:
    summary = finished(done)
    assert json.loads(done.folder.summary_file.read_text()) == summary
    assert (summary["num_rows_in"], summary["num_rows_out"], summary["num_failed"]) == (10, 10, 2)
    assert summary["finish_reasons"] == {"error": 2, "length": 8}
    ((error, count),) = summary["errors"].items()
    assert ("null" in error, count) == (True, 2)
    assert summary["num_generated_tokens"] == 16
    assert summary["tokens_per_s"] > 0


def test_a_part_that_is_not_in_the_plan_is_refused(done: Job) -> None:
    done.folder.data_file(7).write_bytes(done.folder.data_file(0).read_bytes())
    with pytest.raises(ValueError, match=r"part-00007\.parquet is not in the plan"):
        finished(done)


def test_the_card_points_the_hub_at_the_parts(done: Job) -> None:
    finished(done)
    assert "- error, 2 times: `" in done.folder.card_file.read_text()
    front, prose = done.folder.card_file.read_text().split("---\n", 2)[1:]
    header = yaml.safe_load(front)
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["text-generation"]
    (config,) = header["configs"]
    (files,) = config["data_files"]
    assert files == {"split": "train", "path": "data/*.parquet"}
    assert len(list(done.folder.path.glob(files["path"]))) == 3
    for text in ("10 generations", "threshold `0.3`", "- failed: 2", "| `task_id` | string |"):
        assert text in prose


def test_finishing_again_writes_the_same_files(done: Job) -> None:
    summary = finished(done)
    report = done.folder.report_file.read_text()
    assert finished(done) == summary
    assert done.folder.report_file.read_text() == report


def test_lost_work_costs_time_and_gives_no_tokens(done: Job) -> None:
    """Before the start that did all rows, another was killed after half a minute."""
    summary = finished(done)
    write_timeline(done.folder, "0000-1", points(1, 1000.0, 15, num_failed_query_tokens=5))
    with_lost = finished(done)
    assert with_lost["wall_s"] == pytest.approx(summary["wall_s"] + 30)
    assert with_lost["num_generated_tokens"] == summary["num_generated_tokens"] == 16
    assert with_lost["tokens_per_s"] == pytest.approx(16 / with_lost["wall_s"])
    assert with_lost["num_lost_query_tokens"] == 15_000
    assert with_lost["num_failed_query_tokens"] == 75
    assert with_lost["num_starts"] == summary["num_starts"] + 1


def test_parts_with_other_rows_than_planned_are_refused(done: Job) -> None:
    other = RunFolder(done.folder.path)
    other.data_file(2).replace(other.data_file(1))
    other.data_file(0).rename(other.data_file(2))
    (done.folder.data / "part-00000.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match="3 parts in data/ are not as planned") as error:
        finished(done)
    message = str(error.value)
    assert "part-00000.parquet cannot be read" in message
    assert "part-00001.parquet has 2 rows, not 4" in message
    assert "part-00002.parquet has 4 rows, not 2" in message
    assert "run the same command again" in message
    assert not done.folder.summary_file.exists()


def test_a_part_with_other_columns_is_refused(done: Job) -> None:
    write_parquet(done.folder.data_file(1), prompts(4))
    with pytest.raises(ValueError, match=r"part-00001\.parquet has other columns than planned"):
        finished(done)


def with_limit(config: JobConfig, limit: float) -> JobConfig:
    return replace(config, max_failed_fraction=limit)


def test_a_small_job_with_too_many_failed_rows_ends_with_the_reason(done: Job) -> None:
    summary = finished(done)
    check_failures(with_limit(done.config, 0.2), summary)
    with pytest.raises(ValueError, match=r"max_failed_fraction=0\.1: 2 of 10 rows failed.*null"):
        check_failures(with_limit(done.config, 0.1), summary)


def test_files_left_by_killed_writers_are_removed_at_the_end(done: Job) -> None:
    left, young = (done.folder.path / "tmp" / name for name in ("part.host-1", "part.host-2"))
    for file in (left, young):
        file.write_text("torn")
    os.utime(left, (time.time() - 3600, time.time() - 3600))
    finished(done)
    assert not left.exists()
    assert young.exists(), "a process may still be writing it"


def test_the_plan_on_disk_is_enough_to_check_a_run(done: Job) -> None:
    plan = Plan.from_json(done.plan.to_json())
    assert finish(done.config, plan, done.folder)["num_rows_out"] == 10


def test_output_rows_are_the_samples_that_rows_request(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", rows_with_settings())
    a_job = Job(checkpoint, data, tmp_path / "run")
    a_job.run(StandIn(room=3))
    summary = finished(a_job)
    assert (summary["num_rows_in"], summary["num_rows_out"], summary["num_failed"]) == (10, 14, 5)
    card = a_job.folder.card_file.read_text()
    assert "14 generations for 10 prompts" in card
    assert "| rows may override | `max_new_tokens by column 'max_new_tokens', " in card
    a_job.folder.data_file(2).replace(a_job.folder.data_file(0))
    with pytest.raises(ValueError, match=r"part-00000\.parquet has 2 rows, not 7"):
        finished(a_job)
