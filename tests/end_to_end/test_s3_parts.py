"""On S3: the retry of failed rows, parts above 100 MB, inputs that disappear, and the log."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem

from pipeline.generate.driver import Driver
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end.flaky_store import FlakyStore
from tests.end_to_end.launcher import told_once

BUCKET = "parts"


@pytest.fixture
def bucket(server: FlakyStore, s3: AbstractFileSystem) -> AbstractFileSystem:
    server.make_bucket(BUCKET)
    return s3


def put(bucket: AbstractFileSystem, name: str, file: Path) -> str:
    bucket.pipe_file(f"{BUCKET}/{name}", file.read_bytes())
    return f"s3://{BUCKET}/{name}"


def rows_there(bucket: AbstractFileSystem, run_name: str) -> list[dict[str, Any]]:
    files = sorted(bucket.ls(f"{BUCKET}/{run_name}/data", detail=False))
    tables = [pq.read_table(io.BytesIO(bucket.cat_file(file))) for file in files]
    return [row for table in tables for row in table.to_pylist()]


def test_failed_rows_are_retried(
    checkpoint: Path, bucket: AbstractFileSystem, steady: FlakyStore, tmp_path: Path
) -> None:
    """Some rows need a larger K/V cache than the first launch has."""
    rows = [row | {"max_new_tokens": 60 if i % 5 == 0 else 8} for i, row in enumerate(prompts(30))]
    file = write_parquet(tmp_path / "again.parquet", rows)
    data, there = put(bucket, "in/again.parquet", file), f"s3://{BUCKET}/again"
    little = {"engine__cache_tokens": 48, "max_failed_fraction": 0.9}
    run(job(checkpoint, data, there, **little), 0)
    failed = [row["row_id"] for row in rows_there(bucket, "again") if row["error"]]
    assert 0 < len(failed) < 30
    before = RunFolder(there).parts_done()
    run(job(checkpoint, data, there, retry_failed=True), 0)
    run(job(checkpoint, file, tmp_path / "whole"), 0)
    assert_same_rows(rows_there(bucket, "again"), output_rows(tmp_path / "whole"))
    assert RunFolder(there).parts_done() == before


def test_a_part_that_is_uploaded_in_pieces(bucket: AbstractFileSystem, server: FlakyStore) -> None:
    """An object above 16 MB is uploaded in pieces, each of which may fail."""
    folder = RunFolder(f"s3://{BUCKET}/large")
    noise = [random.Random(i).randbytes(1 << 20) for i in range(120)]
    table = pa.table({"noise": pa.array(noise, pa.binary())})
    server.num_requests.clear()
    folder.write_table(folder.data_file(0), table)
    (file,) = bucket.ls(f"{BUCKET}/large/data", detail=True)
    assert file["size"] > 120e6
    assert sum(n for what, n in server.num_requests.items() if what.startswith("PUT")) >= 3
    assert pq.read_table(io.BytesIO(bucket.cat_file(file["name"]))).equals(table)
    assert folder.parts_done() == {0}


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_lost_input_stops_the_job_which_resumes_once_it_is_restored(
    checkpoint: Path,
    bucket: AbstractFileSystem,
    steady: FlakyStore,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    files = [write_parquet(tmp_path / f"{i}.parquet", prompts(20, first=20 * i)) for i in (0, 1)]
    names = [f"in/{change}/{file.name}" for file in files]
    paths = [put(bucket, name, file) for name, file in zip(names, files, strict=True)]
    output = f"s3://{BUCKET}/{change}"
    config = job(checkpoint, paths, output, engine__max_sequences=2)
    write = Driver._write

    def then_lost(self: Driver, full: Any) -> None:
        write(self, full)
        if full.prepared.part.index == 1:
            if change == "removed":
                bucket.rm_file(f"{BUCKET}/{names[1]}")
            else:
                put(bucket, names[1], write_parquet(tmp_path / "other.parquet", prompts(3)))

    monkeypatch.setattr(Driver, "_write", then_lost)
    with pytest.raises(SystemExit) as stop:
        run(config, 0)
    monkeypatch.setattr(Driver, "_write", write)
    said = told_once(capfd.readouterr().err)
    assert stop.value.code == 1
    assert f"data.path={paths[1]}" in said
    assert ("cannot be read" if change == "removed" else "changed after the plan was made") in said
    put(bucket, names[1], files[1])
    assert 2 <= len(RunFolder(output).parts_done()) < 10
    run(config, 0)
    run(job(checkpoint, files, tmp_path / "here"), 0)
    assert_same_rows(rows_there(bucket, change), output_rows(tmp_path / "here"))


def test_a_traceback_is_in_the_uploaded_log(
    checkpoint: Path,
    bucket: AbstractFileSystem,
    steady: FlakyStore,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(self: Driver, full: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Driver, "_write", breaks)
    data = write_parquet(tmp_path / "in.parquet", prompts(4))
    with pytest.raises(SystemExit):
        run(job(checkpoint, data, f"s3://{BUCKET}/broken"), 0)
    said = capfd.readouterr().err
    assert f"with the traceback in s3://{BUCKET}/broken/logs/rank-0.log" in said
    assert "Traceback" in bucket.cat_file(f"{BUCKET}/broken/logs/rank-0.log").decode()
