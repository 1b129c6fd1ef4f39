"""However a job is interrupted, the same command resumes it, and no row is lost or doubled."""

import fcntl
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.run_folder.lock import locked
from pipeline.workers.shutdown import SAME_PRESS_S
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end import stress
from tests.end_to_end.launcher import HELD, PATIENCE_S, environment, wait_for_parts

ARGS = ["output=run", "data.part_rows=4", "decoding=fixed", "cache=none", "engine.block_length=4"]
SLOW = ["generation.max_new_tokens=40", "engine.max_sequences=2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    noise = random.Random(0)
    rows = [{**row, "noise": noise.randbytes(40_000).hex()} for row in prompts(60)]
    return write_parquet(tmp_path / "in.parquet", rows)


def start(
    checkpoint: Path,
    data: Path,
    *args: str,
    held_after: int | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """Start a job with one worker, without torchrun; it waits after so many parts."""
    module = ["pipeline.run"] if held_after is None else [HELD, str(held_after)]
    command = [sys.executable, "-m", *module, *ARGS, *args]
    return subprocess.Popen(
        [*command, "model=demo", f"model.path={checkpoint}", f"data.path={data}"],
        cwd=data.parent,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=before,
    )


def test_interruptions_at_random_moments(tmp_path: Path) -> None:
    draw = random.Random(20)
    reference = tmp_path / "unbroken"
    reference.mkdir()
    times = stress.unbroken(reference)
    for number in range(3):
        place = tmp_path / str(number)
        place.mkdir()
        stress.one_round(place, reference, stress.plan(draw, times))


def test_after_sigterm_begun_rows_are_finished_and_the_next_launch_does_the_rest(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    process = start(checkpoint, data, *SLOW, held_after=2)
    wait_for_parts(process, folder.path, 2)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)  # Slurm and torchrun both send it, at any moment
        time.sleep(0.02)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.count("pipeline.run terminated (SIGTERM). Finished parts are kept") == 1
    assert "Traceback" not in said
    assert 2 <= len(folder.parts_done()) < 15
    assert list((folder.path / "tmp").iterdir()) == []
    said, _ = start(checkpoint, data, *SLOW).communicate(timeout=PATIENCE_S)
    rows = output_rows(folder.path)
    assert [row["row_id"] for row in rows] == [f"in:{i}" for i in range(60)], said


def test_after_ctrl_c_begun_rows_are_finished_and_a_second_one_ends_at_once(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    process = start(checkpoint, data, *SLOW)
    wait_for_parts(process, folder.path, 2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("pipeline.run: Ctrl-C: finishing the rows that are in the engine") == 1
    assert said.count("pipeline.run interrupted (Ctrl-C). Finished parts are kept: run") == 1
    assert "Traceback" not in said
    done = len(folder.parts_done())
    assert 2 <= done < 15
    endless = ["generation.max_new_tokens=120", "engine.max_sequences=60", "output=endless"]
    process = start(checkpoint, data, *endless)
    log = tmp_path / "endless" / "logs" / "rank-0.log"
    while not log.exists() or "output rows" not in log.read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(SAME_PRESS_S + 0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    # Killed by the signal itself, if its rows were done meanwhile and it was ending already.
    assert process.returncode in (130, -signal.SIGINT), said
    assert time.monotonic() - began < 10.0
    assert "Traceback" not in said
    said, _ = start(checkpoint, data, *SLOW).communicate(timeout=120)
    assert f"{4 * done} rows done before" in said
    assert [row["row_id"] for row in output_rows(folder.path)] == [f"in:{i}" for i in range(60)]


def test_sigterm_without_grace_ends_at_once(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    process = start(checkpoint, data, *SLOW, "shutdown_grace_s=0", held_after=1)
    wait_for_parts(process, tmp_path / "run", 1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, said


def test_a_second_launch_in_the_same_run_folder_is_refused(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.run_folder.lock.WAIT_S", 0.1)
    config, folder = job(checkpoint, data, tmp_path / "run", data__limit=8), tmp_path / "run"
    RunFolder(folder).make()
    with locked(RunFolder(folder)), pytest.raises(SystemExit):
        run(config, 0)
    said = capfd.readouterr().err
    assert f"output={folder}: another launch works in this run folder (process" in said
    assert not RunFolder(folder).plan_file.exists()
    run(config, 0)
    assert len(output_rows(folder)) == 8


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fails)
    RunFolder(tmp_path).make()
    with locked(RunFolder(tmp_path)):
        pass
    assert "this file system has no locks" in capfd.readouterr().err


def test_a_full_disk_stops_the_job_with_one_message_and_it_resumes(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """No file may be larger than 100 kB. A part's file has 160 kB; its stats file is smaller."""
    folder = RunFolder(tmp_path / "run")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(checkpoint, data, "generation.max_new_tokens=8", before=little_room)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, said
    (line,) = [line for line in said.splitlines() if "pipeline.run stopped" in line]
    assert "output=run: the disk is full" in line
    assert "make room. Finished parts are kept: run the same command again" in line
    assert "Traceback" not in said
    assert folder.parts_done() == set()
    assert list((folder.path / "tmp").iterdir()) == []
    changes = {"decoding": {"name": "fixed"}, "cache": {"name": "none"}}
    for output in (folder.path, tmp_path / "whole"):
        run(job(checkpoint, data, output, **changes), 0)
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "whole"))
