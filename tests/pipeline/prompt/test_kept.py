"""prompt.keep=true: the output holds the prompts, as text and as messages with the answer."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import UserError
from pipeline.run import run
from tests.checkpoints import job, output_rows, prompts, write_json_lines, write_parquet

HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
Row = dict[str, Any]


def turn(role: str, content: Any, **data: Any) -> Row:
    return {"role": role, "content": content, **data}


def shown(*turns: Row) -> str:
    said = "".join(HEAD.format(its["role"]) + its["content"] + "<|eot_id|>" for its in turns)
    return "<|startoftext|>" + said + HEAD.format("assistant")


def rows_of(checkpoint: Path, data: Path, output: Path, **changes: Any) -> list[Row]:
    changes = {"prompt__keep": True, "stand_in": True, **changes}
    run(job(checkpoint, data, output, **changes), 0)
    return output_rows(output)


def test_the_prompt_as_text_and_as_messages_with_the_answer(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(6))
    rows = rows_of(checkpoint, data, tmp_path / "run", prompt__system="be <|eot_id|>")
    for row in rows:
        system, user = turn("system", "be <|eot_id|>"), turn("user", row["prompt"])
        assert row["prompt_text"] == shown(system, user)
        assert row["messages_with_answer"] == [system, user, turn("assistant", row["text"])]
    names = list(rows[0])
    assert names[names.index("text") - 2 :][:2] == ["prompt_text", "messages_with_answer"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| `prompt_text` | string | the prompt as the model got it" in card


def test_a_filled_template_and_raw_text(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(2))
    filled = rows_of(checkpoint, data, tmp_path / "a", prompt__template="{task_id}: {prompt}")
    assert filled[1]["messages_with_answer"][0] == turn("user", f"t/1: {filled[1]['prompt']}")
    raw = rows_of(checkpoint, data, tmp_path / "b", prompt__chat=False)
    assert [row["prompt_text"] for row in raw] == [row["prompt"] for row in raw]
    assert "messages_with_answer" not in raw[0]


CONVERSATION = [turn("system", "be brief"), turn("user", "hello")]
PARTS = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
IN_FORMS: dict[str, tuple[Any, Any]] = {
    "lists": (CONVERSATION, lambda text: [*CONVERSATION, turn("assistant", text)]),
    "JSON": (
        json.dumps(CONVERSATION),
        lambda text: json.dumps([*CONVERSATION, turn("assistant", text)], ensure_ascii=False),
    ),
    "lists of JSON": (
        [json.dumps(its) for its in CONVERSATION],
        lambda text: [json.dumps(its) for its in (*CONVERSATION, turn("assistant", text))],
    ),
    "parts": (
        [turn("user", PARTS)],
        lambda text: [
            turn("user", PARTS),
            turn("assistant", [{"type": "text", "text": text}]),
        ],
    ),
    "more keys": (
        [*CONVERSATION, turn("user", "again", name="")],
        lambda text: [
            *({**its, "name": None} for its in CONVERSATION),
            turn("user", "again", name=""),
            turn("assistant", text, name=None),
        ],
    ),
}


@pytest.mark.parametrize("form", IN_FORMS)
def test_conversations_keep_their_form(checkpoint: Path, tmp_path: Path, form: str) -> None:
    messages, wanted = IN_FORMS[form]
    pq.write_table(pa.table({"messages": [messages, messages]}), tmp_path / "in.parquet")
    rows = rows_of(checkpoint, tmp_path / "in.parquet", tmp_path / "run")
    for row in rows:
        assert row["error"] is None
        assert row["messages_with_answer"] == wanted(row["text"])
        assert row["messages"] == pq.read_table(tmp_path / "in.parquet")["messages"][0].as_py()


def test_the_jobs_system_turn_is_in_the_conversation(checkpoint: Path, tmp_path: Path) -> None:
    data = write_json_lines(tmp_path / "in.jsonl", [{"messages": [turn("user", "hello")]}])
    (row,) = rows_of(checkpoint, data, tmp_path / "run", prompt__system="be brief")
    assert row["messages_with_answer"] == [*CONVERSATION, turn("assistant", row["text"])]


def test_failed_rows_are_null_and_samples_have_their_own_answers(
    checkpoint: Path, tmp_path: Path
) -> None:
    its = prompts(6)
    its[2]["prompt"] = None
    its[4]["prompt"] = "x" * 300
    data = write_parquet(tmp_path / "in.parquet", its)
    changes = {"generation__num_samples": 3, "generation__temperature": 1.5, "stand_in": False}
    rows = rows_of(checkpoint, data, tmp_path / "run", **changes)
    assert len(rows) == 18
    for row in rows:
        is_failed = row["row_id"] in ("in:2", "in:4")
        assert (row["error"] is not None) == is_failed
        assert (row["prompt_text"] is None) == is_failed
        if is_failed:
            assert row["messages_with_answer"] is None
        else:
            assert row["messages_with_answer"][-1] == turn("assistant", row["text"])
    assert len({row["text"] for row in rows if row["row_id"] == "in:5"}) > 1


def test_failed_rows_that_run_again_get_their_prompts(checkpoint: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x" * 40}, {"prompt": "ab"}])
    changes = {"stand_in": False, "max_failed_fraction": 1.0}
    first = rows_of(checkpoint, data, tmp_path / "run", engine__cache_tokens=64, **changes)
    assert [row["prompt_text"] is None for row in first] == [True, False]
    again = rows_of(checkpoint, data, tmp_path / "run", retry_failed=True, **changes)
    assert again[0]["prompt_text"] == shown(turn("user", "x" * 40))
    assert again[0]["messages_with_answer"][-1] == turn("assistant", again[0]["text"])
    assert again[1] == first[1]


def test_it_is_off_by_default_and_one_run_does_not_mix_both(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", prompts(2))
    rows = rows_of(checkpoint, data, tmp_path / "run", prompt__keep=False)
    assert "prompt_text" not in rows[0]
    with pytest.raises(SystemExit):
        rows_of(checkpoint, data, tmp_path / "run")


@pytest.mark.parametrize("name", ["prompt_text", "messages_with_answer"])
def test_an_input_column_of_the_same_name_is_refused_only_then(
    checkpoint: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "a", name: "b"}])
    assert rows_of(checkpoint, data, tmp_path / "a", prompt__keep=False)[0][name] == "b"
    with pytest.raises((SystemExit, UserError)):
        rows_of(checkpoint, data, tmp_path / "b")
    assert f"{name!r} would collide" in capfd.readouterr().err
