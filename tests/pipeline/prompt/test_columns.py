"""Prompts from columns: of texts that a template takes, of structs, of messages and of tools."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.text.chat import PromptError
from pipeline.config.job import PromptConfig
from pipeline.prompt.columns import prompt_columns
from tests.engine.text.tokenizer_folders import byte_level, prompter, save


def test_a_prompt_is_made_of_one_column_or_of_those_that_the_template_names() -> None:
    config = PromptConfig(column="question")
    assert prompt_columns(["id", "question"], config).names == ["question"]
    assert prompt_columns(["id", "messages"], config).names == ["messages"]
    assert prompt_columns(["messages", "question"], config).names == ["question"]
    with pytest.raises(ValueError, match=r"column='question'.*which has id, text"):
        prompt_columns(["id", "text"], config)
    config = PromptConfig(
        column="question", template="{context}: {prompt} {{name}} {context} {1 + 1}"
    )
    assert prompt_columns(["id", "context", "question"], config).names == ["context", "question"]
    with pytest.raises(ValueError, match=r"\{context\} not in the data, which has id, question"):
        prompt_columns(["id", "question"], config)


def test_a_template_takes_several_columns_as_text(folder: Path) -> None:
    template = "{{a}} {a}<|eot_id|>{n} {prompt} {{not one}}"
    some = prompter(folder, template=template, chat=False, column="q")
    ids = some.token_ids({"a": "<|eot_id|>{n}", "n": 7, "q": "why", "other": 1})
    assert some.tokenizer.decode(ids) == "<|startoftext|>{a} <|eot_id|>{n}<|eot_id|>7 why {not one}"
    eot = some.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert ids.count(eot) == 1, "the template's own; a row's text is text"
    chat = prompter(folder, template=template, column="q", system="be brief")
    said = chat.text(chat.token_ids({"a": "", "n": 1.5, "q": "why"}))
    assert said.startswith("system\n\nbe briefuser\n\n{a} 1.5 why {not one}")
    for row, told in (
        ({"a": None, "n": 1, "q": "x"}, "a: null"),
        ({"a": "", "n": ["x"], "q": "x"}, "n: list"),
        ({"a": "x", "n": 1}, "not in the data"),
    ):
        with pytest.raises(PromptError, match=told):
            some.token_ids(row)
    with pytest.raises(PromptError, match="a, q: only white space"):
        prompter(folder, template="{a}{q}").token_ids({"a": " ", "q": ""})


def test_a_template_reaches_into_structs(folder: Path) -> None:
    some = prompter(folder, chat=False, template="{meta.a b}{meta.more.n}{meta.x.y}{meta.z}")
    row = {"meta.z": "4", "meta": {"a b": "1", "more": {"n": 2}, "x.y": "3", "z": "no"}}
    assert some.text(some.token_ids(row)) == "1234"
    for meta, told in (
        (None, r"meta\.a b: null"),
        ({"a b": "1", "more": None, "x.y": "3"}, r"meta\.more\.n: null"),
        ({"a b": "1", "more": {}, "x.y": "3"}, r"meta\.more\.n: no field 'n'"),
        ("text", r"meta\.a b: str has no field"),
    ):
        with pytest.raises(PromptError, match=told):
            some.token_ids({"meta.z": "4", "meta": meta})


def test_messages_as_json_text_are_messages(folder: Path) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    text, some = json.dumps(turns), prompter(folder)
    wanted = some.token_ids({"messages": turns})
    assert some.token_ids({"messages": text}) == wanted
    assert some.token_ids({"messages": [json.dumps(turn) for turn in turns]}) == wanted
    assert prompter(folder, messages_column="prompt").token_ids({"prompt": text}) == wanted
    with pytest.raises(PromptError, match="messages: text that is not the JSON of a list"):
        some.token_ids({"messages": "hi"})
    told = r"prompt: the JSON of a list of messages; .*messages_column=prompt .*template=\{prompt\}"
    with pytest.raises(PromptError, match=told):
        some.token_ids({"prompt": text})
    filled = prompter(folder, template="{prompt}", chat=False)
    assert filled.text(filled.token_ids({"prompt": text})) == text
    named = prompter(folder, column="messages")
    assert named.token_ids({"messages": text}) == wanted
    assert named.token_ids({"messages": "hi"}) == some.token_ids({"prompt": "hi"})


TOOLS = [{"name": "weather", "description": "says <|eot_id|>"}]
WITH_TOOLS = (
    "{% for t in tools or [] %}<{{ t | tojson }}>{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    "row", [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}]
)
def test_tools_go_to_the_template(folder: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    file = tmp_path / "tools.jinja"
    file.write_text(WITH_TOOLS)
    some = prompter(folder, chat_template=str(file))
    shown = f"<{json.dumps(TOOLS[0])}>[user]hi"
    for tools in (TOOLS, json.dumps(TOOLS), [json.dumps(its) for its in TOOLS]):
        assert some.prompt({**row, "tools": tools}).text == shown
    for nothing in (None, [], "[]"):
        assert some.prompt({**row, "tools": nothing}).text == "[user]hi"
    named = prompter(folder, chat_template=str(file), tools_column="functions")
    assert named.prompt({**row, "functions": TOOLS, "tools": 3}).text == shown
    off = prompter(folder, chat_template=str(file), tools_column=None)
    assert off.prompt({**row, "tools": TOOLS}).text == "[user]hi"
    with pytest.raises(PromptError, match=r"tools: not in the prompt.*tools_column=null"):
        prompter(folder).token_ids({**row, "tools": TOOLS})
    with pytest.raises(PromptError, match="functions: text that is not the JSON"):
        named.token_ids({**row, "functions": "weather()"})


def test_raw_text_takes_no_tools_unless_told_to(folder: Path) -> None:
    raw = prompter(folder, chat=False)
    assert raw.token_ids({"prompt": "hi", "tools": TOOLS}) == raw.token_ids({"prompt": "hi"})
    with pytest.raises(PromptError, match=r"prompt\.tools_column='functions' with prompt.chat=fal"):
        prompter(folder, chat=False, tools_column="functions").token_ids(
            {"prompt": "hi", "functions": TOOLS}
        )


def test_a_column_of_messages_needs_a_chat_template_from_the_start(tmp_path: Path) -> None:
    some = prompter(save(byte_level(), tmp_path, None), chat=False)
    lists = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string())])))])
    texts = pa.schema([("messages", pa.string()), ("prompt", pa.string())])
    some.check_columns(["prompt"], texts)
    for schema in (lists, texts):
        with pytest.raises(ValueError, match=r"messages: a column of .* no chat template"):
            some.check_columns(["messages"], schema)
