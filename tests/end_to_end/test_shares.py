"""Launches that do a share of the parts each: rows once and equal, a summary of one run."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.errors import UserError
from pipeline.plan.run_json import Plan
from pipeline.report.finish import finish_run
from pipeline.run import make_plan_of, run
from pipeline.run_folder.at_work import at_work, read_launch
from pipeline.run_folder.layout import RunFolder
from pipeline.stats.starts import read_starts
from pipeline.stats.timeline import read_timeline
from pipeline.status.__main__ import main as show_status
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end.launcher import PATIENCE_S, environment, finished, wait_until

NUM_ROWS, PART_ROWS, NUM_PARTS = 38, 4, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which two fail: in parts 1 and 5."""
    rows = prompts(NUM_ROWS)
    rows[5]["prompt"] = rows[21]["prompt"] = None
    return write_parquet(tmp_path_factory.mktemp("data") / "in.parquet", rows)


@pytest.fixture(scope="module")
def single(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that one launch makes."""
    run(job(checkpoint, data, folder := tmp_path_factory.mktemp("single") / "run"), 0)
    return folder


def arguments(checkpoint: Path, data: Path, output: Path) -> list[str]:
    """The same job on a command line."""
    return [
        *(f"data.path={data}", "model=demo", f"model.path={checkpoint}", f"output={output}"),
        *(f"data.part_rows={PART_ROWS}", "decoding=threshold", "decoding.threshold=0.3"),
        *("cache=dual", "generation.max_new_tokens=8", "engine.max_sequences=6"),
        "engine.block_length=4",
    ]


def popen(module: str, *args: str) -> subprocess.Popen[str]:
    """`python -m MODULE ARGS`, with stderr in stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *args],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def at_once(*args: str) -> str:
    process = popen("tests.end_to_end.at_once", *args)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def same_rows(run: Path, single: Path) -> None:
    assert_same_rows(output_rows(run), output_rows(single))
    names = [sorted(file.name for file in (its / "data").iterdir()) for its in (run, single)]
    assert names[0] == names[1]


def test_three_at_once_make_the_rows_of_one_and_a_plain_run_the_summary(
    checkpoint: Path, data: Path, single: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    said = at_once("0,1,2/3", *arguments(checkpoint, data, tmp_path / "run"))
    same_rows(tmp_path / "run", single)
    for index, num in enumerate([4, 3, 3]):
        assert f"in {num} parts of share {index}/3, 0 rows done before; workers: 1" in said
        assert re.search(rf"rows of share {index}/3 \(100%\)", said)
        assert f"the {num} parts of share {index}/3 are done; " in said
    assert "; 10 of 10 of the run; this writes summary, card and report: " in said
    assert not folder.summary_file.exists()
    assert (at_work(folder).is_held, len(list(folder.logs.iterdir()))) == (False, 3)
    run(job(checkpoint, data, folder.path), 0)
    summary = json.loads(folder.summary_file.read_text())
    of_single = json.loads((single / "summary.json").read_text())
    for name in ("num_rows_out", "num_failed", "num_ok", "num_generated_tokens", "num_forwards"):
        assert summary[name] == of_single[name], name
    assert (summary["num_workers"], summary["num_starts"]) == (3, 3)
    settings = [start["settings"] for start in summary["starts"]]
    assert sorted(settings) == ["share=0/3", "share=1/3", "share=2/3"]
    assert [start.number for start in read_starts(folder)] == [1, 2, 3]
    work = read_timeline(folder)
    assert summary["total_s"] == pytest.approx(sum(work["total_s"].to_pylist()))
    assert summary["wall_s"] < summary["total_s"]
    assert "share: null" in folder.config_file.read_text()
    page = folder.report_file.read_text()
    assert all(f">{share}/3<" in page for share in range(3)), "each is a worker of the table"


def test_eight_first_comers_on_an_empty_folder(data: Path, tmp_path: Path) -> None:
    """One plan, eight records of starts; none takes the others' files for a stranger's."""
    few = ["model=demo", "stand_in=true", f"data.path={data}", f"output={tmp_path}/run"]
    at_once("0,1,2,3,4,5,6,7/8", *few, "generation.max_new_tokens=8")
    folder = RunFolder(tmp_path / "run")
    starts = read_starts(folder)
    assert [start.number for start in starts] == list(range(1, 9))
    assert sorted(start.settings["share"] for start in starts) == [f"{i}/8" for i in range(8)]
    found = finish_run(folder)
    assert found.summary is not None
    assert (found.summary["num_rows_out"], found.summary["num_workers"]) == (NUM_ROWS, 8)
    ids = [row["row_id"] for row in output_rows(tmp_path / "run")]
    assert ids == [f"in:{row}" for row in range(NUM_ROWS)]


def test_what_a_missing_share_left_a_plain_run_does(
    checkpoint: Path, data: Path, single: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    at_once("0,2/3", *arguments(checkpoint, data, tmp_path / "run"))
    assert finish_run(folder).missing == [1, 4, 7]
    assert not folder.summary_file.exists()
    run(job(checkpoint, data, folder.path), 0)
    same_rows(tmp_path / "run", single)
    assert finish_run(folder).missing == []
    summary = json.loads(folder.summary_file.read_text())
    assert (summary["num_rows_out"], summary["num_workers"]) == (NUM_ROWS, 3)
    assert len(summary["starts"]) == 3


def test_while_a_share_is_at_work(
    checkpoint: Path,
    data: Path,
    single: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others join; a second one of it, or one of all parts, does not; kill -9 makes way."""
    monkeypatch.setattr("pipeline.run_folder.lock.WAIT_S", 0.2)
    folder, plain = RunFolder(tmp_path / "run"), job(checkpoint, data, tmp_path / "run")
    of = lambda share: job(checkpoint, data, folder.path, share=share)  # noqa: E731
    args = arguments(checkpoint, data, tmp_path / "run")
    process = popen("tests.end_to_end.held", "1", *args, "share=0/2")
    try:
        wait_until(process, lambda: bool(folder.parts_done()))
        for config in (of("0/2"), plain):
            with pytest.raises(SystemExit):
                run(config, 0)
            said = capfd.readouterr().err
            assert f"works in this run folder (share 0/2: process {process.pid} on " in said
        with pytest.raises(UserError, match="another launch works in this run folder"):
            finish_run(folder)
        run(of("1/2"), 0)
        assert "5 parts of share 1/2 are done; 6 of 10 of the run\n" in capfd.readouterr().out
        monkeypatch.setattr(sys, "argv", ["pipeline.status", str(folder.path)])
        with pytest.raises(SystemExit) as stop:
            show_status()
        shown = capfd.readouterr().out
        assert stop.value.code == 1
        assert re.search(rf"(?m)^at work +share 0/2: process {process.pid} on ", shown)
        assert "\nresume" not in shown
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with pytest.raises(SystemExit):
        show_status()
    assert re.search(
        r"(?m)^resume .* \(without share=1/2 it does all that is left\)$", capfd.readouterr().out
    )
    run(of("0/2"), 0)
    same_rows(tmp_path / "run", single)
    assert "10 of 10 of the run; this writes summary" in capfd.readouterr().out
    launch = read_launch(folder)
    assert launch is not None
    assert launch.share == "0/2"


def test_failed_rows_of_a_share_alone_are_run_again(
    checkpoint: Path, data: Path, single: Path, tmp_path: Path
) -> None:
    """The failed rows are in parts 1 and 5: of three shares, in 1/3 and 2/3."""
    run(job(checkpoint, data, tmp_path / "run"), 0)
    folder = RunFolder(tmp_path / "run")
    before = {part: folder.data_file(part).stat().st_mtime_ns for part in range(NUM_PARTS)}
    run(job(checkpoint, data, folder.path, share="1/3", retry_failed=True), 0)
    after = {part: folder.data_file(part).stat().st_mtime_ns for part in range(NUM_PARTS)}
    assert [part for part in before if before[part] != after[part]] == [1]
    assert pq.read_table(folder.stats_file(1))["num_failed"].to_pylist() == [1, 1]
    same_rows(tmp_path / "run", single)


def test_a_share_of_several_workers(
    checkpoint: Path, data: Path, single: Path, tmp_path: Path
) -> None:
    """The ranks of one launch draw the share's parts from a counter of their own."""
    folder = RunFolder(tmp_path / "run")
    args = arguments(checkpoint, data, tmp_path / "run")
    said = finished([*args, "share=1/2"], tmp_path, num_workers=2)
    assert "in 5 parts of share 1/2, 0 rows done before; workers: 2" in said
    assert sorted(folder.parts_done()) == [1, 3, 5, 7, 9]
    assert sorted(file.name for file in folder.logs.iterdir()) == [
        f"share-1-of-2-rank-{rank}.log" for rank in range(2)
    ]
    run(job(checkpoint, data, folder.path), 0)
    same_rows(tmp_path / "run", single)


def test_more_shares_than_parts(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    run(job(checkpoint, data, tmp_path / "run", share="15/20", stand_in=True), 0)
    assert RunFolder(tmp_path / "run").parts_done() == set()
    run(job(checkpoint, data, tmp_path / "run", share="9/20", stand_in=True), 0)
    assert RunFolder(tmp_path / "run").parts_done() == {9}


def test_a_dry_run_tells_the_share(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(job(checkpoint, data, tmp_path / "run", share="1/4", dry_run=True), 0)
    said = capfd.readouterr().out
    assert re.search(r"output +38 rows in 10 parts; ", said)
    assert re.search(r"share 1/4 +10 rows in 3 parts, 3\.0 for each of 1 workers", said)
    assert "tried            10 output rows of the first 3 parts of share 1/4, 2 of them" in said
    assert not (tmp_path / "run").exists()


def test_broken_parts_of_other_shares_are_left_to_them(
    checkpoint: Path, data: Path, single: Path, tmp_path: Path
) -> None:
    run(job(checkpoint, data, tmp_path / "run"), 0)
    folder = RunFolder(tmp_path / "run")
    for part in (2, 3):
        folder.data_file(part).write_bytes(b"cut short")
    run(job(checkpoint, data, folder.path, share="1/2"), 0)
    assert folder.data_file(2).read_bytes() == b"cut short", "another launch may be at work on it"
    assert finish_run(folder).missing == [2]
    run(job(checkpoint, data, folder.path, share="0/2"), 0)
    assert finish_run(folder).missing == []
    same_rows(tmp_path / "run", single)


def test_the_size_of_parts_counts_the_workers_of_all_shares(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(256))
    changes: dict[str, Any] = {"data__part_rows": None, "stand_in": True}
    run(job(checkpoint, data, tmp_path / "one", **changes), 0)
    run(job(checkpoint, data, tmp_path / "eight", share="0/8", **changes), 0)
    parts = [json.loads((tmp_path / its / "run.json").read_text()) for its in ("one", "eight")]
    assert [its["fingerprint"]["data.part_rows"] for its in parts] == [8, 4]
    run(job(checkpoint, data, tmp_path / "eight", **changes), 0)
    assert len(RunFolder(tmp_path / "eight").parts_done()) == 64, "the parts stay as they are"


def test_a_first_comer_takes_over_the_plan_that_another_has_written_meanwhile(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 2 shares the parts would have 8 rows; the other, which counts 8, has chosen 4."""
    data = write_parquet(tmp_path / "in.parquet", prompts(256))
    changes: dict[str, Any] = {"data__part_rows": None, "stand_in": True}
    make, calls = make_plan_of, list[int]()

    def overtaken(*args: Any) -> Plan:
        plan = make(*args)
        calls.append(len(plan.parts))
        if len(calls) == 1:
            run(job(checkpoint, data, tmp_path / "run", share="0/8", **changes), 0)
        return plan

    monkeypatch.setattr("pipeline.run.make_plan_of", overtaken)
    run(job(checkpoint, data, tmp_path / "run", share="1/2", **changes), 0)
    assert calls == [32, 64, 64]
    done = RunFolder(tmp_path / "run").parts_done()
    assert sorted(done) == sorted({*range(0, 64, 8), *range(1, 64, 2)})
