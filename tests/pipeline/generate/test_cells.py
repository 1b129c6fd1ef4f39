"""Whatever happens while a row is prepared is that row's error, with its file, row and column."""

import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.text.chat import ChatTokenizer
from pipeline.generate.cells import MAX_TRACEBACKS, Unreadable, cells_of
from pipeline.prompt.prompter import Prompter
from pipeline.run import run
from pipeline.workers.shutdown import Terminated
from tests.checkpoints import job, output_rows, prompts, write_parquet


class PanicException(BaseException):
    """What a library in Rust raises; like theirs, no Exception."""


def with_bad_bytes(values: list[bytes | None]) -> pa.Array:
    return pa.array(values).cast(pa.string(), safe=False)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("template", [None, "{prompt} {more}"])
def test_a_prompt_that_is_not_utf8_is_its_rows_error(
    checkpoint: Path, tmp_path: Path, kind: pa.DataType, template: str | None
) -> None:
    bad = with_bad_bytes([b"ok", b"caf\xe9", b"", b"also"]).cast(kind)
    table = pa.table({"prompt": bad, "more": ["1", "2", "3", "4"]})
    pq.write_table(table, tmp_path / "in.parquet")
    config = job(
        checkpoint,
        tmp_path / "in.parquet",
        tmp_path / "run",
        stand_in=True,
        prompt__template=template,
    )
    run(config, 0)
    errors = [row["error"] for row in output_rows(tmp_path / "run")]
    assert errors[1].startswith("prompt: not UTF-8 (byte 0xe9 at 3); write the text as UTF-8")
    assert errors[1].endswith(f"(row 1 of {tmp_path}/in.parquet)")
    assert (errors[0], errors[3]) == (None, None)


@pytest.mark.parametrize("line", [b'{"prompt": "caf\xe9"}', b'{"prompt": "x\\ud83d"}'])
def test_a_line_of_json_that_is_not_unicode_is_its_rows_error(
    checkpoint: Path, tmp_path: Path, line: bytes
) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n')
    run(job(checkpoint, tmp_path / "in.jsonl", tmp_path / "run", stand_in=True), 0)
    errors = [row["error"] for row in output_rows(tmp_path / "run")]
    assert [error is None for error in errors] == [True, False, True]
    assert "prompt: not UTF-8" in errors[1]


def test_messages_with_one_bad_turn_cost_only_their_row(checkpoint: Path, tmp_path: Path) -> None:
    texts = with_bad_bytes([b"hello", b"\xff", b"there"])
    turns = pa.StructArray.from_arrays([pa.array(["user"] * 3), texts], ["role", "content"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 1, 2, 3], turns)})
    pq.write_table(table, tmp_path / "in.parquet")
    run(job(checkpoint, tmp_path / "in.parquet", tmp_path / "run", stand_in=True), 0)
    rows = output_rows(tmp_path / "run")
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["messages"] == [{"role": "user", "content": "\ufffd"}]


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (ValueError("substring not found"), "ValueError: substring not found"),
        (RecursionError(), "RecursionError: RecursionError"),
        (PanicException("index out of range\nnote"), "PanicException: index out of range"),
        (KeyError("content"), "KeyError: 'content'"),
    ],
)
def test_an_error_that_nobody_has_thought_of_is_its_rows_error(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    shown: str,
) -> None:
    user_turn = ChatTokenizer.user_turn

    def failing(self: ChatTokenizer, name: str, contents: list[str], *rest: Any) -> list[int]:
        if contents == ["odd"]:
            raise raised
        return user_turn(self, name, contents, *rest)

    monkeypatch.setattr(ChatTokenizer, "user_turn", failing)
    rows = [{"prompt": "even"}] * 2 + [{"prompt": "odd"}] * (MAX_TRACEBACKS + 2) + [{"prompt": "a"}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    run(job(checkpoint, data, tmp_path / "run", stand_in=True, max_failed_fraction=1.0), 0)
    errors = [row["error"] for row in output_rows(tmp_path / "run")]
    assert [error is not None for error in errors] == [row["prompt"] == "odd" for row in rows]
    assert errors[2] == (
        f"prompt: cannot be made a prompt of ({shown}; row 2 of {tmp_path}/in.parquet)"
    )
    log = (tmp_path / "run" / "logs" / "rank-0.log").read_text()
    assert log.count("Traceback") == MAX_TRACEBACKS


def test_an_interruption_is_no_rows_error(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> list[int]:
        raise Terminated(signal.SIGINT)

    monkeypatch.setattr(Prompter, "prompt", interrupted)
    data = write_parquet(tmp_path / "in.parquet", prompts(1))
    with pytest.raises(SystemExit) as stop:
        run(job(checkpoint, data, tmp_path / "run", stand_in=True), 0)
    assert stop.value.code == 130


def test_only_the_cell_that_cannot_be_read_has_no_value() -> None:
    """Python has no nanoseconds; 1,000 of them are a microsecond, which it has."""
    table = pa.table({"t": pa.array([1000, 1, None], pa.timestamp("ns")), "n": [1, 2, 3]})
    cells = cells_of(table, ["t", "n"])
    assert [isinstance(row["t"], Unreadable) for row in cells] == [False, True, False]
    assert [row["n"] for row in cells] == [1, 2, 3]
    assert isinstance(cells[1]["t"].error, ValueError)
    assert type(cells[0]["t"]) is datetime


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ns", "UTC"), pa.duration("ns"), pa.time64("ns")],
    ids=str,
)
@pytest.mark.parametrize("inside", [False, True])
def test_no_value_is_pandas(kind: pa.DataType, inside: bool) -> None:
    """Whether pandas is installed or not."""
    values = pa.array([1000, 1, None], pa.int64()).cast(kind)
    if inside:
        values = pa.StructArray.from_arrays([pa.array([[x] for x in values])], ["x"])
    cells = cells_of(pa.table({"t": values}), ["t"])
    assert [isinstance(row["t"], Unreadable) for row in cells] == [False, True, False]
    first = cells[0]["t"]["x"][0] if inside else cells[0]["t"]
    assert type(first).__module__ == "datetime"
