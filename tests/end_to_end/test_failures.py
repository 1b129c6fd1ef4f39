"""Failures at work: a row's becomes its `error`; one of the job stops it with one message."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch.distributed as dist

from engine.runner import ModelRunner
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import (
    EOS,
    MASK,
    assert_same_rows,
    job,
    output_rows,
    prompts,
    write_parquet,
)
from tests.end_to_end.stopped import Stopped


def test_bad_rows_get_an_error_and_all_other_rows_are_generated(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = prompts(20)
    good = job(checkpoint, write_parquet(tmp_path / "good.parquet", rows), tmp_path / "good")
    run(good, 0)
    bad = {3: None, 4: "", 5: "x" * 300, 6: f"say {MASK} twice {MASK}", 7: f"a{EOS}b"}
    for i, prompt in bad.items():
        rows[i]["prompt"] = prompt
    data = write_parquet(tmp_path / "in.parquet", rows)
    run(job(checkpoint, data, tmp_path / "run"), 0)
    out = output_rows(tmp_path / "run")
    told = {row["row_id"]: row["error"] for row in out if row["error"] is not None}
    assert list(told) == ["in:3", "in:4", "in:5"]
    assert "null" in told["in:3"]
    assert "empty" in told["in:4"]
    assert "shorten the prompt" in told["in:5"]
    assert all(out[row]["finish_reason"] != "error" for row in (6, 7)), "text, not a special token"
    assert out[6]["num_prompt_tokens"] > out[0]["num_prompt_tokens"] + 2 * len(MASK)
    untouched = [row for i, row in enumerate(output_rows(tmp_path / "good")) if i not in bad]
    mine = [{**row, "row_id": f"good:{i}"} for i, row in enumerate(out) if i not in bad]
    for row, other in zip(mine, untouched, strict=True):
        row["seed"] = other["seed"]  # it depends on the file's name; greedy decoding ignores it
    assert_same_rows(mine, untouched)


def test_a_prompt_that_fits_the_context_but_not_the_cache_is_an_error_of_its_row(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = prompts(6)
    rows[1]["prompt"] = "x" * 150
    data = write_parquet(tmp_path / "in.parquet", rows)
    run(job(checkpoint, data, tmp_path / "run", engine__cache_tokens=128), 0)
    errors = [row["error"] for row in output_rows(tmp_path / "run")]
    assert "cache_tokens=128" in errors[1]
    assert errors.count(None) == 5


def test_messages_replace_a_prompt_column(checkpoint: Path, tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "x"}], None]
    rows = [{"id": i, "messages": messages} for i, messages in enumerate(turns)]
    data = write_parquet(tmp_path / "in.parquet", rows)
    run(job(checkpoint, data, tmp_path / "run", max_failed_fraction=1.0), 0)
    first, second, third = output_rows(tmp_path / "run")
    assert (first["error"], first["messages"]) == (None, turns[0])
    assert "assistant turn" in second["error"]
    assert "null" in third["error"]


def traceback_of(said: str) -> str:
    """The traceback in the file that a message names; the file is removed."""
    (name,) = re.findall(r"with the traceback in (\S+\.txt)", said)
    file = Path(name)
    text = file.read_text()
    file.unlink()
    return text


def fails_before_there_is_a_log(*args: Any, **options: Any) -> Any:
    raise RuntimeError("no log yet")


def test_a_broken_engine_stops_the_job_and_the_same_command_resumes_it(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stopped: Stopped,
) -> None:
    config = job(checkpoint, data, tmp_path / "run", engine__max_sequences=2)
    forward, calls = ModelRunner.forward, list[int]()

    def breaks(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise RuntimeError("the device is gone")
        return forward(*args)

    monkeypatch.setattr(ModelRunner, "forward", breaks)
    said = stopped(config)
    folder = RunFolder(config.output)
    assert "RuntimeError: the device is gone" in said
    assert "run the same command again to resume" in said
    assert str(folder.log_file(0)) in said
    assert "Traceback" in folder.log_file(0).read_text()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run.pin", fails_before_there_is_a_log)
        with pytest.raises(SystemExit):
            run(config, 0)
    said = capfd.readouterr().err
    assert str(folder.log_file(0)) not in said, "the log is an earlier launch's"
    assert "in fails_before_there_is_a_log" in traceback_of(said)
    assert 0 < len(folder.parts_done()) < 5
    run(config, 0)
    whole = job(checkpoint, data, tmp_path / "whole")
    run(whole, 0)
    assert_same_rows(output_rows(folder.path), output_rows(tmp_path / "whole"))


def test_a_full_disk_stops_the_job(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: Stopped,
) -> None:
    def full(self: RunFolder, file: Path, table: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(RunFolder, "write_table", full)
    said = stopped(job(checkpoint, data, tmp_path / "run"))
    assert f"output={tmp_path / 'run'}: the disk is full" in said
    assert "make room" in said


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        TypeError("unhashable type: 'list'"),
        KeyError("schema"),
        ValueError("substring not found"),
        pa.ArrowInvalid("Integer value out of bounds"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        OSError("Couldn't deserialize thrift: TProtocolException"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_librarys_error_is_a_bug_in_one_line_with_the_place_of_its_traceback(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: Stopped,
    error: Exception,
) -> None:
    monkeypatch.setattr("pipeline.run.make_plan", raising(error))
    said = stopped(job(checkpoint, data, tmp_path / "run"))
    assert said.startswith(f"a bug: {type(error).__name__}: ")
    assert said.count("\n") == 1
    assert "please report it" in said
    assert "in make_plan_of" in traceback_of(said)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/f"), "/a/f: this user may not"),
        (PermissionError("/a/f"), "this user may not read or write it; .* (/a/f)"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/f"), "/a/f: is not there"),
        (OSError(errno.EROFS, "Read-only file system", "/a/f"), "/a/f: its file system is read-o"),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "/a/f"),
            "/a/f: the disk is full .*; make",
        ),
        (OSError(errno.EXDEV, "Invalid link", "/a/f"), "/a/f: check the disk .* (Invalid link)"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files open; raise the limit"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "the network has failed"),
        (ConnectionResetError(errno.ECONNRESET, "Reset by peer"), "the network has failed"),
        (TimeoutError(), "the network has failed (TimeoutError); start again"),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_said_in_our_own_words(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: Stopped,
    error: OSError,
    told: str,
) -> None:
    monkeypatch.setattr("pipeline.run.make_plan", raising(error))
    said = stopped(job(checkpoint, data, tmp_path / "run"))
    assert re.search(told.replace("(", r"\(").replace(")", r"\)"), said), said
    assert "a bug" not in said
    assert "Finished parts are kept" in said


def test_a_launcher_that_has_gone_is_no_bug(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: Stopped,
) -> None:
    monkeypatch.setattr("pipeline.failures.SILENCE_S", 0.0)
    monkeypatch.setattr("pipeline.run.make_plan", raising(dist.DistNetworkError("no reply")))
    said = stopped(job(checkpoint, data, tmp_path / "run"))
    assert "its launcher, or another rank of its group, has ended" in said
    assert "(no reply)" in said
    assert "a bug" not in said


def test_past_max_failed_fraction_the_job_stops(
    checkpoint: Path, tmp_path: Path, stopped: Stopped
) -> None:
    rows = [{**row, "prompt": None if i % 3 else row["prompt"]} for i, row in enumerate(prompts(9))]
    data = write_parquet(tmp_path / "in.parquet", rows)
    said = stopped(job(checkpoint, data, tmp_path / "run"))
    assert "max_failed_fraction=0.5: 6 of 9 rows failed" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_failed"] == 6
    run(job(checkpoint, data, tmp_path / "run", max_failed_fraction=0.7), 0)
