"""Row filters, ids, templates, the dry run, the retry of failed rows, and the stand-in."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.job import JobConfig
from pipeline.plan.retry import (
    Remaining,
    failed_places,
    find_remaining,
    num_failed_in,
    replace_rows,
)
from pipeline.plan.run_json import load
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.stats.timeline import read_timeline
from pipeline.stats.totals import failures
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet

ROWS = [{**row, "lang": "py" if i % 2 else "c"} for i, row in enumerate(prompts(20))]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "in.parquet", ROWS)


def test_rows_taken_by_where_are_the_same_as_in_the_whole_run(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    sampled = {"generation__temperature": 0.7, "data__id_column": "task_id"}
    run(job(checkpoint, data, tmp_path / "all", **sampled), 0)
    where = "lang = 'py' AND task_id <> 't/7'"
    run(job(checkpoint, data, tmp_path / "some", **sampled, data__where=where), 0)
    wanted = [
        row
        for row in output_rows(tmp_path / "all")
        if row["lang"] == "py" and row["task_id"] != "t/7"
    ]
    assert [row["row_id"] for row in wanted] == [f"t/{i}" for i in range(1, 20, 2) if i != 7]
    assert_same_rows(output_rows(tmp_path / "some"), wanted)


def test_a_template_over_columns(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    template = "In {lang}: {prompt}"
    run(job(checkpoint, data, tmp_path / "run", prompt__template=template), 0)
    filled = [{**row, "prompt": f"In {row['lang']}: {row['prompt']}"} for row in ROWS]
    run(job(checkpoint, write_parquet(tmp_path / "filled.parquet", filled), tmp_path / "same",
            data__id_column="task_id"), 0)  # fmt: skip
    mine, its = (output_rows(tmp_path / name) for name in ("run", "same"))
    assert [row["token_ids"] for row in mine] == [row["token_ids"] for row in its]
    assert [row["num_prompt_tokens"] for row in mine] == [row["num_prompt_tokens"] for row in its]


def test_only_failed_rows_are_retried(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows that did not fit into the K/V cache, and one that always fails."""
    rows = [
        {**row, "prompt": "x" * 60 if i in (2, 3, 9) else row["prompt"]}
        for i, row in enumerate(ROWS)
    ]
    rows[5]["prompt"] = None
    data = write_parquet(tmp_path / "in.parquet", rows)
    few: dict[str, Any] = {
        "engine__cache_tokens": 64,
        "engine__page_size": 8,
        "prompt__chat": False,
    }
    many = few | {"engine__cache_tokens": 512}
    run(job(checkpoint, data, tmp_path / "whole", **many), 0)
    config, folder = job(checkpoint, data, tmp_path / "run", **few), RunFolder(tmp_path / "run")
    run(config, 0)
    assert [i for i, row in enumerate(output_rows(folder.path)) if row["error"]] == [2, 3, 5, 9]
    plan, untouched = load(folder), folder.data_file(3).stat()
    left = find_remaining(plan, folder, False)
    assert (left.num_outcomes, left.retried, left.num_failed) == (0, [], 4)
    left = find_remaining(plan, folder, True)
    assert (left.num_outcomes, len(left.retried), left.num_failed) == (4, 3, 0)
    assert Remaining.from_json(left.to_json()) == left
    run(job(checkpoint, data, folder.path, **many), 0)
    assert [i for i, row in enumerate(output_rows(folder.path)) if row["error"]] == [2, 3, 5, 9]
    capfd.readouterr()
    run(job(checkpoint, data, folder.path, **many, retry_failed=True), 0)
    said = capfd.readouterr().err
    assert "16 rows done before" in said
    assert "20/20 rows (100%), 1 failed" in said
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "whole"))
    assert folder.data_file(3).stat() == untouched, "a part without failures is left alone"
    assert sum(failures(folder, read_timeline(folder), folder.parts_done()).values()) == 1
    summary = json.loads(folder.summary_file.read_text())
    assert (summary["num_ok"], summary["num_failed"]) == (19, 1)
    left = find_remaining(plan, folder, True)
    assert (left.num_outcomes, len(left.retried)) == (1, 1)
    run(job(checkpoint, data, folder.path, **many, retry_failed=True), 0)
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "whole"))


def test_failed_rows_are_counted_with_and_without_statistics_in_the_footer(tmp_path: Path) -> None:
    table = pa.table({"x": [[1], [2, 3], []], "error": [None, "a", "b"]})
    for statistics in (True, False):
        pq.write_table(table, tmp_path / "f.parquet", write_statistics=statistics, row_group_size=2)
        assert num_failed_in(tmp_path / "f.parquet") == 2
        assert failed_places(tmp_path / "f.parquet") == [1, 2]
    new = pa.table({"x": [[8], [9]], "error": [None, "c"]}, schema=table.schema)
    assert replace_rows(table, new, [1, 2]).to_pylist() == [
        *table.slice(0, 1).to_pylist(),
        *new.to_pylist(),
    ]


def test_a_dry_run_reports_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS, {**ROWS[0], "prompt": None}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    changes = {"generation__num_samples": 2, "generation__temperature": 1.0, "dry_run": True}
    before = set(tmp_path.rglob("*"))
    config: JobConfig = job(checkpoint, data, tmp_path / "run", **changes)
    run(config, 0)
    said = capfd.readouterr().out
    assert "21 rows taken" in said
    assert "42 rows in 6 parts, 6.0 for each of 1 workers" in said
    assert "tried            42 output rows of the first 6 parts, 2 of them failed" in said
    assert "prompt: null; give the row a prompt" in said
    assert "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>" in said
    assert set(tmp_path.rglob("*")) == before


def test_a_dry_run_finds_what_would_stop_the_job(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here, a checkpoint without its weights."""
    model = shutil.copytree(checkpoint, tmp_path / "model")
    (model / "model.safetensors").unlink()
    with pytest.raises(SystemExit):
        run(job(model, data, tmp_path / "run", dry_run=True), 0)
    assert "holds no *.safetensors file" in capfd.readouterr().err


def test_a_dry_run_finds_what_is_wrong_with_the_run_folder(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = RunFolder(tmp_path / "run")

    def said(**changes: object) -> str:
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
        with suppress(SystemExit):
            run(job(checkpoint, data, folder.path, stand_in=True, dry_run=True, **changes), 0)
        assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
        return "".join(capfd.readouterr())

    assert "run folder       new" in said()
    run(job(checkpoint, data, folder.path, stand_in=True), 0)
    folder.data_file(1).unlink()
    assert "holds this run, with 4 of 5 parts done; the job would resume it" in said()
    assert "holds a run with other settings:\n  seed: 0 there, 5 now" in said(seed=5)
    with locked(folder):
        assert "another launch works in this run folder (process " in said()
    monkeypatch.setattr("os.access", lambda path, mode: path != folder.data)
    assert f"cannot be written (no permission to write to {folder.data})" in said()
    monkeypatch.setattr("os.access", lambda path, mode: True)
    config = job(checkpoint, data, data / "run", stand_in=True, dry_run=True)
    with pytest.raises(SystemExit):
        run(config, 0)
    assert f"cannot be written ({data} is a file)" in capfd.readouterr().err


def test_the_stand_in_runs_a_job_without_weights(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.generate.models.load_model", None)
    run(job(checkpoint, data, tmp_path / "run", stand_in=True, prompt__chat=False), 0)
    rows = output_rows(tmp_path / "run")
    assert [row["text"] for row in rows] == [row["prompt"][:8] for row in ROWS]
