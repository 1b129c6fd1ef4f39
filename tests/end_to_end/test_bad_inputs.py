"""Wrong settings and inputs. A fault of the job gives an exit code and one message, which says what
to do, fits on a screen and has no traceback. A fault of a row becomes its `error`, and the job
continues."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.launch import launch
from pipeline.run import run
from tests.checkpoints import (
    job,
    output_rows,
    prompts,
    write_checkpoint,
    write_json_lines,
    write_parquet,
)

SCREEN_LINES, SCREEN_WIDTH = 40, 200
Make = Callable[[Path], list[str]]
"""Writes files into the working folder; returns further arguments for the command line."""


def put(name: str, content: bytes | str) -> Make:
    def make(place: Path) -> list[str]:
        data = content.encode() if isinstance(content, str) else content
        (place / name).write_bytes(data)
        return [f"data.path={name}"]

    return make


def table(*columns: dict[str, list[Any]], args: tuple[str, ...] = ()) -> Make:
    """One Parquet file for each dict of columns."""

    def make(place: Path) -> list[str]:
        for i, its in enumerate(columns):
            pq.write_table(pa.table(its), place / f"t{i}.parquet")
        return ["data.path=t*.parquet", *args]

    return make


def with_args(*args: str) -> Make:
    """A good input with wrong arguments."""
    return lambda place: list(args)


def chat_template(text: str, *args: str) -> Make:
    """A good input with a wrong chat template."""

    def make(place: Path) -> list[str]:
        (place / "wrong.jinja").write_text(text)
        return ["prompt.chat_template=wrong.jinja", *args]

    return make


def model(**changes: Any) -> Make:
    """A checkpoint with changes in its config.json."""

    def make(place: Path) -> list[str]:
        folder = write_checkpoint(place / "changed")
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | changes))
        return ["model.path=changed"]

    return make


def cut_parquet(place: Path) -> list[str]:
    data = (place / "in.parquet").read_bytes()
    return put("cut.parquet", data[: len(data) // 2])(place)


def empty_folder(place: Path) -> list[str]:
    (place / "empty").mkdir()
    return ["data.path=empty"]


def file_in_the_way(place: Path) -> list[str]:
    (place / "file").write_text("")
    return ["output=file/run"]


def another_run(place: Path) -> list[str]:
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text("{}")
    return []


def two_of_one_name(place: Path) -> list[str]:
    pq.write_table(
        pa.Table.from_arrays([["a"], [1], [2]], names=["prompt", "n", "n"]), "two.parquet"
    )
    return ["data.path=two.parquet"]


PROMPT = {"prompt": ["a", "b"]}
TWICE = {"prompt": ["a", "b"], "key": ["x", "x"]}
JOB: dict[str, tuple[Make, str]] = {
    "no data": (with_args("data.path=???"), "data.path"),
    "unknown ready job": (with_args("conf=humanevl"), "humaneval"),
    "unknown model": (with_args("model=lada"), "llada_8b"),
    "unknown field": (
        with_args("data.limt=3"),
        "data.limt=3: no such field",
    ),
    "a word for a number": (with_args("data.limit=many"), "a whole number or null"),
    "a number out of range": (with_args("data.part_rows=0"), "data.part_rows=0: give at least 1"),
    "no such file": (with_args("data.path=nowhere.parquet"), "no such file or folder"),
    "an empty folder": (empty_folder, "no file that ends in one of"),
    "another kind of file": (put("in.csv", "prompt\na\n"), "no file that ends in one of"),
    "an unreachable address": (with_args("data.path=http://127.0.0.1:9/x.parquet"), "127.0.0.1"),
    "a file without rows": (table({"prompt": pa.array([], pa.string())}), "no rows in 1 files"),
    "half a Parquet file": (cut_parquet, "cut.parquet: is cut short"),
    "text called Parquet": (put("text.parquet", "hello"), "text.parquet: is not a Parquet file"),
    "an empty Parquet file": (put("zero.parquet", ""), "zero.parquet: is empty"),
    "a line that is not JSON": (put("a.jsonl", '{"prompt": "a"}\n{"prompt"'), "line 2: not JSON"),
    "a line that is no object": (put("a.jsonl", '["a"]\n'), "line 1: text; must be an object"),
    "a column of two types": (put("a.jsonl", '{"prompt": 1}\n{"prompt": "a"}\n'), "'prompt'"),
    "a key not UTF-8": (put("a.jsonl", b'{"\xff": 1}\n'), "a.jsonl line 1: the key"),
    "an array without end": (put("a.json", '[{"prompt": "a"},'), "the array does not end"),
    "two columns of one name": (two_of_one_name, "2 columns are called 'n'"),
    "half a gzip file": (put("a.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n')[:-9]), "cannot be"),
    "files that disagree": (table(PROMPT, {"prompt": [1]}), "the files disagree on column"),
    "no prompt": (table({"question": ["a"]}), "neither is in the data, which has question"),
    "no such prompt column": (with_args("prompt.column=q"), "prompt.column='q': not in the data"),
    "a template of nothing": (with_args("prompt.template=hello"), "names no column"),
    "a template of no column": (with_args("prompt.template='{promt}'"), "{promt} not in the data"),
    "a column of ours": (table(PROMPT | {"text": ["a", "b"]}), "'text' would collide"),
    "carried and not there": (with_args("data.carry=[x]"), "data.carry: x not in the data"),
    "a setting of text": (table(PROMPT | {"temperature": ["a", "b"]}), "of type string"),
    "a typo in a template": (
        with_args("prompt.template='{Prompt}'"),
        "nearest to {Prompt} is {prom",
    ),
    "words in a template": (
        with_args("prompt.template='{prompt} {some words}'"),
        "{some words} not",
    ),
    "a column in double braces": (
        with_args("prompt.template='{prompt}{{task_id}}'"),
        "nowhere else",
    ),
    "a typed line break": (with_args("prompt.template='Q: {prompt}\\nA:'"), "press Enter"),
    "a broken chat template": (chat_template("{{ x }"), "chat template is broken in line 1"),
    "no chat template of this name": (with_args("prompt.chat_template=rag"), "no such file, and"),
    "a lost system turn": (
        chat_template("{{ messages[-1].content }}", "prompt.system=x"),
        "leaves out a content",
    ),
    "no such tools": (
        with_args("prompt.tools_column=fns"),
        "prompt.tools_column='fns': not in the",
    ),
    "where is no SQL": (with_args('data.where="task_id ="'), "polars cannot do this"),
    "where of no column": (with_args("data.where='lang > 1'"), "lang not in the data"),
    "where takes none": (with_args("data.where=\"prompt = 'q'\""), "no rows that data.where"),
    "no such id": (with_args("data.id_column=key"), "data.id_column='key': not in the data"),
    "an id twice": (table(TWICE, args=("data.id_column=key",)), "have the same id 'x'"),
    "no room for a prompt": (with_args("generation.max_new_tokens=256"), "leaves no room"),
    "the same many times": (with_args("generation.num_samples=2"), "all would be the same"),
    "a cache that lies": (with_args("cache=block_causal"), "with a bidirectional model"),
    "a page larger than all": (with_args("engine.cache_tokens=8"), "less than one page"),
    "a group without ranks": (with_args("engine.tensor_parallel=2"), "engine.tensor_parallel=2"),
    "experts of a dense model": (with_args("engine.expert_parallel=true"), "expert_parallel"),
    "no model": (with_args("model.path=/no/model"), "model.path=/no/model"),
    "a wrong mask": (model(mask_token_id=3), "correct mask_token_id in config.json"),
    "a layer too much": (model(n_layers=3), "missing model.transformer.blocks.2"),
    "another architecture": (model(alibi=True), "alibi=True: the LLaDA loader supports only False"),
    "a family unknown": (model(model_type="gpt2"), "this checkpoint's family is not supported"),
    "a file in the way": (file_in_the_way, "output=file/run: cannot be written"),
    "another run there": (another_run, "not a plan of this version"),
    "an unknown task": (with_args("task=chess"), "task='chess': give one of"),
}


@pytest.mark.parametrize("fault", JOB)
def test_a_fault_of_the_job_stops_it_with_one_message(
    checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_parquet(Path("in.parquet"), prompts(3))
    make, told = JOB[fault]
    args = ["model=demo", f"model.path={checkpoint}", "output=run", "data.path=in.parquet"]
    args += make(tmp_path)
    before = set(tmp_path.rglob("*"))
    capfd.readouterr()
    with mock.patch("sys.argv", ["pipeline.run", *args]), pytest.raises(SystemExit) as stop:
        launch(run)
    said = capfd.readouterr().err
    assert stop.value.code == 1
    assert said.count("pipeline.run stopped: ") == 1
    assert told in said
    assert "Traceback" not in said
    lines = said.strip().splitlines()
    assert len(lines) <= SCREEN_LINES
    assert sum(len(line) // SCREEN_WIDTH + 1 for line in lines) <= SCREEN_LINES
    assert set(tmp_path.rglob("*")) == before, "nothing was written"


def message(content: Any, role: Any = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({"prompt": None}, "prompt: null"),
    "empty": ({"prompt": ""}, "prompt: empty"),
    "blank": ({"prompt": " \n\t"}, "prompt: only white space"),
    "a length of nothing": ({"max_new_tokens": -3}, "max_new_tokens=-3"),
    "longer than the context": ({"prompt": "x" * 300}, "shorten the prompt"),
    "longer than the cache": ({"prompt": "x" * 150}, "engine.cache_tokens=128: raise it"),
    "no length": ({"max_new_tokens": 0}, "max_new_tokens=0"),
    "a length beyond all": ({"max_new_tokens": 10**6}, "max_new_tokens=1000000"),
    "cold": ({"temperature": -1.0}, "temperature=-1.0: give 0"),
    "no samples": ({"num_samples": 0}, "num_samples=0: give a whole number"),
    "the same twice": ({"num_samples": 2}, "all would be the same"),
    "half a seed": ({"seed": 1.5}, "seed=1.5: give a whole number"),
}
MESSAGES: dict[str, tuple[list[Any], str]] = {
    "no messages": ([], "messages: an empty list"),
    "no content": ([message(None)], "messages[0].content: null"),
    "blank content": ([message(" ")], "messages[0].content: blank"),
    "no role": ([message("a", "")], "messages[0].role: empty"),
    "a role that is a token": ([message("a", "<|eot_id|>")], "spells a special token"),
    "an answer at the end": ([message("a"), message("b", "assistant")], "an assistant turn"),
}


def assert_only_these_failed(
    checkpoint: Path, data: Path, output: Path, faults: list[tuple[Any, str]]
) -> None:
    """Run the job, in whose data every second row is good and each other has one of `faults`."""
    changes = {"engine__cache_tokens": 128, "max_failed_fraction": 0.9, "prompt__chat": False}
    run(job(checkpoint, data, output, **changes), 0)
    rows = output_rows(output)
    assert len(rows) == 2 * len(faults)
    for good, bad, (_, told) in zip(rows[::2], rows[1::2], faults, strict=True):
        assert good["error"] is None
        assert (bad["finish_reason"], bad["text"]) == ("error", None)
        assert told in bad["error"]


def test_a_fault_of_a_row_becomes_its_error_and_the_other_rows_are_generated(
    checkpoint: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = dict.fromkeys(
        ("max_new_tokens", "temperature", "num_samples", "seed")
    )
    good = {"prompt": "hello", **settings}
    rows = [row for bad, _ in ROWS.values() for row in (good, good | bad)]
    data = write_json_lines(tmp_path / "in.jsonl", rows)
    assert_only_these_failed(checkpoint, data, tmp_path / "run", list(ROWS.values()))


def test_a_fault_in_messages_becomes_the_rows_error(checkpoint: Path, tmp_path: Path) -> None:
    good = {"messages": [message("hello")]}
    rows = [row for bad, _ in MESSAGES.values() for row in (good, {"messages": bad})]
    data = write_json_lines(tmp_path / "in.jsonl", rows)
    assert_only_these_failed(checkpoint, data, tmp_path / "run", list(MESSAGES.values()))
