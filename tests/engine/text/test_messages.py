"""The forms in which data sets give messages and tools, and what is wrong with others."""

import datetime
import json
from typing import Any

import pytest

from engine.text.messages import PromptError, is_messages_text, tools_of, turns_of

HELLO = {"role": "user", "content": "Hello"}
CALL = {"name": "f", "arguments": {"a": 1}}
PARTS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo", "image": None}]
FORMS: dict[str, Any] = {
    "a list": [HELLO],
    "a tuple": (HELLO,),
    "JSON": json.dumps([HELLO]),
    "JSON of each": [json.dumps(HELLO)],
    "parts": [{"role": "user", "content": PARTS}],
    "one part": [{"role": "user", "content": {"type": "text", "text": "Hello"}}],
    "parts without type": [{"role": "user", "content": [{"text": "Hello"}]}],
    "texts": [{"role": "user", "content": ["Hel", "lo"]}],
    "parts in JSON": json.dumps([{"role": "user", "content": PARTS}]),
    "nulls and empties": [{**HELLO, "tool_calls": None, "name": "", "more": [], "about": {}}],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_turn(form: str) -> None:
    assert turns_of("m", FORMS[form]) == [HELLO]


@pytest.mark.parametrize("calls", [[CALL], json.dumps([CALL]), [{**CALL, "id": None}]])
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}])
def test_a_message_of_data_needs_no_content(calls: Any, content: dict[str, Any]) -> None:
    turns = turns_of("m", [{"role": "assistant", "tool_calls": calls, **content}, HELLO])
    assert turns == [{"role": "assistant", "content": None, "tool_calls": [CALL]}, HELLO]


def test_data_keeps_what_says_something() -> None:
    (turn,) = turns_of("m", [{**HELLO, "weight": 0, "train": False, "x": {"y": None, "z": ""}}])
    assert turn == {**HELLO, "weight": 0, "train": False, "x": {"z": ""}}


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("[{'role': 'user'}]", "m: text that is not the JSON of a list of messages"),
    "plain text": ("Hello", "m: text that is not the JSON of a list of messages (Expecting"),
    "another JSON": ('{"role": "user"}', "m: dict; must be a list of messages"),
    "a deep JSON": ("[" * 100_000, "m: text that is not the JSON"),
    "a long number": (f"[{'9' * 5000}]", "m: text that is not the JSON"),
    "an empty JSON": ("[]", "m: an empty list"),
    "a number": (3, "m: int; must be a list of messages"),
    "an image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        "m[0].content[0].type: 'image_url'; the model reads only text",
    ),
    "a part that is none": ([{"role": "user", "content": [3]}], "m[0].content[0]: int"),
    "a part without text": (
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        "m[0].content[0].text: null",
    ),
    "a part with more": (
        [{"role": "user", "content": [{"type": "text", "text": "a", "cite": "b"}]}],
        "m[0].content[0]: cite beside the text",
    ),
    "a number for content": ([{"role": "user", "content": 3}], "m[0].content: int; must be text"),
    "nothing said": ([{"role": "user", "content": None, "name": ""}], "m[0].content: null"),
    "ShareGPT": ([{"from": "human", "value": "a"}], "m[0]: has no role, but from, value; must be"),
    "a date": (
        [{**HELLO, "at": datetime.date(2024, 1, 1)}],
        "m[0].at: date; must be text, a number",
    ),
    "tool calls that are no JSON": (
        [{"role": "assistant", "tool_calls": "weather()"}, HELLO],
        "m[0].tool_calls: text that is not the JSON of a list of tool calls",
    ),
    "an answer": ([HELLO, {"role": "assistant", "content": "x"}], "m: ends with an assistant turn"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_conversation_says_why(case: str) -> None:
    value, told = WRONG[case]
    with pytest.raises(PromptError) as error:
        turns_of("m", value)
    assert told in str(error.value)


def test_tools_in_every_form() -> None:
    tool = {"name": "f", "parameters": {"a": {"type": "string"}}}
    arrow = {"name": "f", "parameters": {"a": {"type": "string"}, "b": None}, "strict": None}
    for form in ([tool], json.dumps([tool]), [json.dumps(tool)], (tool,), [arrow]):
        assert tools_of("tools", form) == [tool]
    for nothing in (None, [], "", "[]", "null"):
        assert tools_of("tools", nothing) is None
    for wrong, told in (("f", "not the JSON"), (["f"], "tools[0]: text"), ([3], "tools[0]: int")):
        with pytest.raises(PromptError) as error:
            tools_of("tools", wrong)
        assert told in str(error.value)


def test_which_texts_are_the_json_of_messages() -> None:
    assert is_messages_text(f" {json.dumps([HELLO])}")
    for text in ("[1, 2]", "[]", '["role"]', '[{"role": 1}, 2]', "[role", "Say [", '{"role": 1}'):
        assert not is_messages_text(text)
