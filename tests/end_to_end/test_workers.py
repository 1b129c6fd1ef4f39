"""Two workers under torchrun give the same rows as one, even if a worker is killed."""

import json
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config.job import JobConfig
from pipeline.run import run
from pipeline.run_folder.at_work import at_work
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import (
    assert_same_rows,
    job,
    output_rows,
    prompts,
    write_json_lines,
    write_parquet,
)
from tests.end_to_end.launcher import (
    HELD,
    PATIENCE_S,
    environment,
    finished,
    kill_a_worker,
    start,
    told_once,
    wait_for_parts,
    wait_until,
)
from tests.launched import composed

NUM_ROWS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("data") / "in.parquet", prompts(NUM_ROWS))


def config(checkpoint: Path, data: Path, output: Path) -> JobConfig:
    """A sampled job of 30 parts."""
    return job(
        checkpoint,
        data,
        output,
        decoding={"name": "fixed"},
        cache={"name": "none"},
        generation__max_new_tokens=20,
        generation__temperature=0.7,
        engine__max_sequences=2,
        seed=3,
    )


def arguments(checkpoint: Path, data: Path) -> list[str]:
    """The same job as a command line."""
    return [
        *(
            f"data.path={data}",
            "model=demo",
            f"model.path={checkpoint}",
            "output=run",
            "data.part_rows=4",
        ),
        *("decoding=fixed", "cache=none", "generation.max_new_tokens=20"),
        *("generation.temperature=0.7", "engine.max_sequences=2", "engine.block_length=4"),
        *("seed=3", "progress_every_s=1"),
    ]


@pytest.fixture(scope="module")
def one_worker(
    checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    """The rows of an uninterrupted run with one worker."""
    folder = tmp_path_factory.mktemp("one") / "run"
    run(config(checkpoint, data, folder), 0)
    return output_rows(folder)


def test_two_workers_give_the_same_rows_as_one(
    checkpoint: Path, data: Path, tmp_path: Path, one_worker: list[dict[str, object]]
) -> None:
    said = finished(arguments(checkpoint, data), tmp_path)
    assert_same_rows(output_rows(tmp_path / "run"), one_worker)
    assert [row["row_id"] for row in one_worker] == [f"in:{i}" for i in range(NUM_ROWS)]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_rows_out"] == NUM_ROWS
    assert summary["tokens_per_forward"] == pytest.approx(1.0, abs=0.05)
    assert summary["num_workers"] == summary["num_starts"] == 2
    assert summary["num_lost_query_tokens"] == summary["num_failed_query_tokens"] == 0
    assert 0 < summary["load_s"] < summary["warm_up_s"] < 2 * summary["wall_s"]
    assert "worker 1" in (tmp_path / "run" / "report.html").read_text()
    assert said.count("run is done") == 1
    assert f"{NUM_ROWS}/{NUM_ROWS} rows (100%), 0 failed" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_after_kill_9_the_same_command_resumes(
    checkpoint: Path, data: Path, tmp_path: Path, one_worker: list[dict[str, object]]
) -> None:
    folder = RunFolder(tmp_path / "run")
    process = start(["3", *arguments(checkpoint, data)], tmp_path, module=HELD)
    kill_a_worker(process, folder.path, after_parts=3)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    done = {part: folder.data_file(part).stat().st_mtime_ns for part in folder.parts_done()}
    assert 3 <= len(done) < 30
    assert f"{4 * len(done)} rows done before" in finished(arguments(checkpoint, data), tmp_path)
    assert_same_rows(output_rows(folder.path), one_worker)
    for part, written_at in done.items():
        assert folder.data_file(part).stat().st_mtime_ns == written_at, "done parts are kept"
    summary = json.loads(folder.summary_file.read_text())
    assert summary["num_generated_tokens"] == sum(
        len(row["token_ids"]) for row in output_rows(folder.path)
    )
    assert summary["num_starts"] >= 2, "a killed worker's count may be lost"


def test_after_kill_9_torchruns_restart_resumes(
    checkpoint: Path, data: Path, tmp_path: Path, one_worker: list[dict[str, object]]
) -> None:
    """torchrun's store outlives the workers, and keeps all their keys."""
    args = ["3", *arguments(checkpoint, data)]
    process = start(args, tmp_path, launcher=["--max-restarts=2"], module=HELD)
    kill_a_worker(process, tmp_path / "run", after_parts=3)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert_same_rows(output_rows(tmp_path / "run"), one_worker)


def test_parts_of_part_minutes_stay_the_same_after_kills(
    checkpoint: Path, data: Path, tmp_path: Path, one_worker: list[dict[str, object]]
) -> None:
    """The first 64 parts, of one row each, are timed. One kill comes during these, one after."""
    folder = RunFolder(tmp_path / "run")
    args = [*arguments(checkpoint, data), "data.part_rows=1", "data.part_minutes=0.1"]
    paces = []
    for num_parts in (10, 64):
        process = start([str(num_parts), *args], tmp_path, module=HELD)
        if num_parts == 64:
            wait_until(process, folder.pace_file.exists)
        kill_a_worker(process, folder.path, num_parts)
        process.communicate(timeout=PATIENCE_S)
        paces.append(folder.pace_file.read_text() if folder.pace_file.exists() else None)
    assert "in 120 parts (fewer, larger" not in finished(args, tmp_path), "the parts are final now"
    assert paces == [None, folder.pace_file.read_text()]
    num_joined = json.loads(folder.pace_file.read_text())["num_joined"]
    assert num_joined > 1
    assert folder.parts_done() == set(range(64 - (-(NUM_ROWS - 64) // num_joined)))
    assert pq.ParquetFile(folder.data_file(64)).metadata.num_rows == min(num_joined, 56)
    assert_same_rows(output_rows(folder.path), one_worker)


def test_ctrl_c_under_torchrun(
    checkpoint: Path, data: Path, tmp_path: Path, one_worker: list[dict[str, object]]
) -> None:
    """torchrun passes the first Ctrl-C on to its workers; the record says how to go on."""
    folder = RunFolder(tmp_path / "run")
    process = start(arguments(checkpoint, data), tmp_path)
    wait_for_parts(process, folder.path, 3)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said.count("pipeline.run: Ctrl-C: finishing the rows that are in the engine") == 1
    assert said.count("pipeline.run interrupted (Ctrl-C). Finished parts are kept: run") == 1
    assert 3 <= len(folder.parts_done()) < 30
    now = at_work(folder)
    assert now.is_held is False
    assert now.launch is not None
    assert now.launch.num_ranks == 2
    resumed = subprocess.run(
        ["bash", "-c", now.launch.resume],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same_rows(output_rows(folder.path), one_worker)


def test_humaneval_runs_on_a_file_with_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f'def f{i}(x):\n    """Return x + {i}."""\n',
            "entry_point": f"f{i}",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + i}\n",
        }
        for i in range(20)
    ]
    write_json_lines(tmp_path / "tasks.jsonl.gz", rows)
    args = ["conf=humaneval", "model=demo", "data.path=tasks.jsonl.gz"]
    run(composed(*args, "generation.max_new_tokens=16"), 0)
    out = output_rows(tmp_path / "runs" / "humaneval")
    assert [row["row_id"] for row in out] == [f"tasks:{i}" for i in range(20)]
    assert [{name: row[name] for name in rows[0]} for row in out] == rows
    assert all(row["error"] is None for row in out)


def test_a_mistake_is_reported_only_once_by_all_workers(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = arguments(checkpoint, data)
    said = finished([*args, "prompt.column=question"], tmp_path, code=1)
    assert told_once(said) == (
        "prompt.column='question': not in the data, which has task_id, prompt, tags, about; "
        "set prompt.column to one of these"
    )
    broken = tmp_path / "model"
    subprocess.run(["cp", "-r", checkpoint, broken], check=True)
    (broken / "model.safetensors").unlink()
    with pytest.raises(SystemExit):
        run(config(broken, data, tmp_path / "other"), 0)
    assert "holds no *.safetensors file" in told_once(capfd.readouterr().err)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_torchrun_shows_a_fault_of_the_job_once_last_and_its_restarts_do_no_work(
    checkpoint: Path, data: Path, tmp_path: Path, num_workers: int
) -> None:
    """Each plan that is made leaves a file: only the first start may make one."""
    plans = tmp_path / "plans"
    plans.mkdir()
    said = finished(
        [str(plans), *arguments(checkpoint, data), "prompt.column=question"],
        tmp_path,
        code=1,
        launcher=["--max-restarts=2"],
        num_workers=num_workers,
        module="tests.end_to_end.counting_plans",
    )
    assert "prompt.column='question': not in the data" in told_once(said)
    last = [line for line in said.splitlines() if line.strip("= ")][-1]
    assert "pipeline.run stopped: prompt.column='question'" in last
    assert len(list(plans.iterdir())) == 1


def test_what_a_restart_may_cure_is_said_before_it_and_does_not_look_like_the_end(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    args = ["full_disk", *arguments(checkpoint, data)]
    how = {"launcher": ["--max-restarts=1"], "module": "tests.end_to_end.broken"}
    said = finished(args, tmp_path, code=1, **how)
    assert said.count("pipeline.run starts again, after this: output=run: the disk is full") == 1
    assert "output=run: the disk is full" in told_once(said)
