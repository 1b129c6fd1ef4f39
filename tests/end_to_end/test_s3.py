"""Input and output on S3, with a local server that fails every fifth request."""

import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem

from pipeline.config.job import JobConfig
from pipeline.plan.run_json import load
from pipeline.run import run
from pipeline.run_folder import lease, store
from pipeline.run_folder.at_work import at_work
from pipeline.run_folder.files import changed_at, place
from pipeline.run_folder.layout import RunFolder
from pipeline.score import score_run
from pipeline.status import __main__ as status
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end.conftest import forget_the_store
from tests.end_to_end.flaky_store import KEYS, FlakyStore
from tests.end_to_end.launcher import HELD, finished, start, told_once, wait_until
from tests.launched import composed

NUM_ROWS, PART_ROWS = 24, 4
QUICK = "tests.end_to_end.quick_beats"


@pytest.fixture(scope="module")
def data(server: FlakyStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input on disk; it is also at s3://bucket/in/in.parquet."""
    file = write_parquet(tmp_path_factory.mktemp("data") / "in.parquet", prompts(NUM_ROWS))
    server.make_bucket("bucket")
    fs, _ = store.fs_and_path("s3://bucket")
    fs.pipe_file("bucket/in/in.parquet", file.read_bytes())
    return file


def config(checkpoint: Path, data: str | Path, output: str | Path, **changes: Any) -> JobConfig:
    slow = {
        "decoding": {"name": "fixed"},
        "cache": {"name": "none"},
        "generation__max_new_tokens": 20,
        "engine__max_sequences": 2,
    }
    return job(checkpoint, data, output, **{**slow, **changes})  # type: ignore[arg-type]


def arguments(checkpoint: Path, output: str) -> list[str]:
    """The same job on a command line."""
    return [
        *(
            "data.path=s3://bucket/in/*.parquet",
            "model=demo",
            f"model.path={checkpoint}",
            f"output={output}",
        ),
        *(f"data.part_rows={PART_ROWS}", "decoding=fixed", "cache=none"),
        *("generation.max_new_tokens=20", "engine.max_sequences=2", "engine.block_length=4"),
    ]


@pytest.fixture(scope="module")
def here(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run on disk."""
    folder = RunFolder(tmp_path_factory.mktemp("here") / "run")
    run(config(checkpoint, data, folder.path), 0)  # type: ignore[arg-type]
    return folder


def rows_of(fs: AbstractFileSystem, output: str) -> list[dict[str, Any]]:
    files = [fs.cat_file(file) for file in sorted(fs.ls(f"{output}/data", detail=False))]
    return [row for data in files for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def same_rows(fs: AbstractFileSystem, output: str, here: RunFolder) -> None:
    assert_same_rows(rows_of(fs, output), output_rows(Path(str(here.path))))


def test_two_workers_on_a_store_that_fails_every_fifth_request(
    checkpoint: Path,
    s3: AbstractFileSystem,
    server: FlakyStore,
    here: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.num_requests.clear()
    server.num_faults.clear()
    said = finished(arguments(checkpoint, "s3://bucket/runs/two"), tmp_path)
    same_rows(s3, "bucket/runs/two", here)
    assert all(server.num_faults[kind] for kind in ("slow", "error", "dropped", "unanswered"))
    there = RunFolder("s3://bucket/runs/two")
    assert load(there).fingerprint["input files"] == load(here).fingerprint["input files"]
    names = {file.removeprefix("bucket/runs/two/") for file in s3.find("bucket/runs/two")}
    assert {"run.json", "config.yaml", "summary.json", "README.md", "report.html"} < names
    assert {"logs/rank-0.log", "logs/rank-1.log"} < names
    assert "run.lock" not in names
    assert not any(name.startswith("tmp/") for name in names)
    assert list(tmp_path.iterdir()) == [], "nothing is written to the disk"
    no_secrets_in(said, *(s3.cat_file(f"bucket/runs/two/{name}") for name in names), server=server)
    num_parts = NUM_ROWS // PART_ROWS
    assert sum(server.num_requests.values()) < 40 * num_parts, server.num_requests
    monkeypatch.setattr(sys, "argv", ["pipeline.status", "s3://bucket/runs/two"])
    with pytest.raises(SystemExit) as stop:
        status.main()
    assert stop.value.code == 0
    assert f"{num_parts} of {num_parts} done" in capsys.readouterr().out


def no_secrets_in(*texts: str | bytes, server: FlakyStore) -> None:
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        for secret in (*KEYS.values(), server.endpoint.removeprefix("http://")):
            assert secret.encode() not in data


def test_after_kill_9_of_all_processes_the_same_command_resumes(
    checkpoint: Path, s3: AbstractFileSystem, steady: FlakyStore, here: RunFolder, tmp_path: Path
) -> None:
    args, folder = (
        arguments(checkpoint, "s3://bucket/runs/killed"),
        place("s3://bucket/runs/killed"),
    )
    process = start(["1", *args], tmp_path, module=HELD)
    try:
        wait_until(process, lambda: bool(RunFolder(folder).parts_done()))
        workers = children(process.pid)
    finally:
        process.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    process.communicate()
    done = RunFolder(folder).parts_done()
    assert 1 <= len(done) < NUM_ROWS // PART_ROWS
    assert s3.exists("bucket/runs/killed/run.lock")
    before = store.listing(place("s3://bucket/runs/killed/data"))  # type: ignore[arg-type]
    said = finished(args, tmp_path, module=QUICK)
    assert f"{PART_ROWS * len(done)} rows done before" in said
    same_rows(s3, "bucket/runs/killed", here)
    after = store.listing(place("s3://bucket/runs/killed/data"))  # type: ignore[arg-type]
    assert {name: after[name] for name in before} == before, "done parts are kept"
    assert not s3.exists("bucket/runs/killed/run.lock")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_second_launch_is_refused_while_the_first_renews_its_lock(
    checkpoint: Path,
    data: Path,
    s3: AbstractFileSystem,
    steady: FlakyStore,
    quick: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lock = place("s3://bucket/runs/held/run.lock")
    assert not isinstance(lock, Path)
    job = config(checkpoint, "s3://bucket/in", "s3://bucket/runs/held", data__limit=8)
    with lease.held(lock, "process 7 on that host"), pytest.raises(SystemExit):
        run(job, 0)
    said = capfd.readouterr().err
    assert (
        "output=s3://bucket/runs/held: another launch works in this run folder (process 7 on that "
        "host); wait for it or stop it, or give another output"
    ) in said
    assert not s3.exists("bucket/runs/held/run.json")
    run(job, 0)
    assert len(rows_of(s3, "bucket/runs/held")) == 8


def test_on_a_store_too_strangers_are_refused_and_a_dead_run_is_seen(
    checkpoint: Path,
    data: Path,
    s3: AbstractFileSystem,
    steady: FlakyStore,
    quick: None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = RunFolder("s3://bucket/mine/run")
    assert changed_at(folder.data) is None
    s3.pipe_file("bucket/mine/README.md", b"mine")
    s3.pipe_file("bucket/mine/thesis/1.txt", b"mine")
    with pytest.raises(SystemExit):
        run(config(checkpoint, "s3://bucket/in", "s3://bucket/mine"), 0)
    said = capfd.readouterr().err
    assert "s3://bucket/mine: is in use for something else: it holds README.md, thesis/" in said
    assert sorted(s3.find("bucket/mine")) == ["bucket/mine/README.md", "bucket/mine/thesis/1.txt"]
    small = config(checkpoint, "s3://bucket/in", str(folder.path), data__limit=8)
    run(small, 0)
    assert (at_work(folder).is_held, at_work(folder).holder) == (False, "")
    lock = folder.lock_file
    assert not isinstance(lock, Path)
    with lease.held(lock, "process 7 on that host"):
        assert (at_work(folder).is_held, at_work(folder).holder) == (True, "process 7 on that host")
    store.write_if(lock, '{"holder": "process 8", "id": "8", "beats": 1}', None)
    capfd.readouterr()
    run(small, 0)
    said = capfd.readouterr().err
    assert "another launch works in this run folder (process 8); waiting up to " in said
    store.write_if(lock, '{"holder": "process 9", "id": "9", "beats": 1}', None)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3600)
    assert at_work(folder).is_held is False
    assert at_work(folder).silent_s == pytest.approx(3600, abs=30)
    assert at_work(folder).launch is not None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, server: FlakyStore) -> Iterator[None]:
    """Only two attempts per request."""
    monkeypatch.setitem(store.RETRIES, "max_retries", 1)
    forget_the_store()
    yield
    forget_the_store()


def test_a_store_that_is_gone_stops_the_job_with_one_message(
    checkpoint: Path,
    data: Path,
    steady: FlakyStore,
    here: RunFolder,
    impatient: None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = RunFolder("s3://bucket/runs/gone")
    write = store.write

    def then_gone(file: Any, fill: Any) -> None:
        if file.name == "part-00002.parquet":
            steady.share = 1.0
        write(file, fill)

    monkeypatch.setattr(store, "write", then_gone)
    with pytest.raises(SystemExit) as stop:
        run(config(checkpoint, "s3://bucket/in", "s3://bucket/runs/gone"), 0)
    assert stop.value.code == 1
    said = capfd.readouterr().err
    assert "cannot write s3://bucket/runs/gone/stats/part-00002.parquet" in told_once(said)
    assert "Finished parts are kept: run the same command again" in said
    assert "rank-0.log is not written (the store does not answer); the log is /" in said
    no_secrets_in(said, server=steady)
    steady.share = 0.0
    assert folder.parts_done() == {0, 1}


def test_a_run_on_a_store_is_scored(data: Path, s3: AbstractFileSystem, steady: FlakyStore) -> None:
    args = ["conf=demo", "data.limit=4", "output=s3://bucket/runs/demo", "stand_in=true"]
    run(composed(*args), 0)
    assert score_run("s3://bucket/runs/demo").num_rows == 4
    assert json.loads(s3.cat_file("bucket/runs/demo/scores.json"))["num_rows"] == 4
    assert s3.exists("bucket/runs/demo/scores.parquet")


def test_a_missing_bucket_stops_the_job(
    checkpoint: Path, data: Path, steady: FlakyStore, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(config(checkpoint, data, "s3://no-such-bucket/run"), 0)
    said = capfd.readouterr().err
    assert "output=s3://no-such-bucket/run: cannot be read (" in said
    assert "404 Not Found (NoSuchBucket: The specified bucket does not exist)" in told_once(said)
    no_secrets_in(said, server=steady)
