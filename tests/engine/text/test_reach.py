"""What a conversation says reaches the prompt, or is an error that names what is left out."""

from pathlib import Path
from typing import Any

import pytest

from engine.text.chat import ChatTokenizer, PromptError
from engine.text.messages import ChatOptions
from tests.engine.text.tokenizer_folders import byte_level, save

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[assistant]"
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
TWO_ROLES = (
    "{% for m in messages %}{% if m.role == 'user' %}[U]{{ m.content }}"
    "{% elif m.role == 'assistant' %}[A]{{ m.content }}{% endif %}{% endfor %}"
)
ELSE = (
    "{% for m in messages %}{{ '[U]' if m.role == 'user' else '[A]' }}{{ m.content }}{% endfor %}"
)
CALLS = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}"
    "{% for c in m.tool_calls or [] %}{{ 'CALL ' + c.name }}{% endfor %}{% endfor %}[assistant]"
)
QWEN = """{% if tools %}<tools>{% for t in tools %}
{{ t | tojson }}{% endfor %}</tools>
{% endif %}{% for m in messages %}{% if m.role == 'tool' %}[user]<out>{{ m.content }}</out>
{% else %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}
{% set c = c.function if c.function else c %}{"name": "{{ c.name }}", "arguments": \
{{ c.arguments | tojson }}}{% endfor %}{% endif %}
{% endfor %}[assistant]"""
NULL_CONTENT = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is none %}"
    "{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
THINK = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}"
    "{% if loop.last %}{{ m.reasoning_content or '' }}{% endif %}{% endfor %}"
)
ESCAPED = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
WEATHER = {"name": "weather", "arguments": {"city": "Zürich", "days": 3}}
OPENAI = {"id": "call_1", "type": "function", "function": WEATHER}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(byte_level(), tmp_path_factory.mktemp("tokenizer"))


def chat(folder: Path, template: str, **options: Any) -> ChatTokenizer:
    file = folder / f"{abs(hash(template))}.j2"
    file.write_text(template)
    return ChatTokenizer(folder, options=ChatOptions(chat_template=str(file), **options))


def turn(role: str, content: Any, **data: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **data}


def calling(call: dict[str, Any], content: Any = "") -> list[dict[str, Any]]:
    return [
        turn("user", "Weather?"),
        turn("assistant", content, tool_calls=[call]),
        turn("tool", "sunny"),
    ]


SYSTEM = [turn("system", "Be brief."), turn("user", "Be brief. Why?")]
LOST: dict[str, tuple[str, list[Any], Any, str]] = {
    "a system turn": (NO_SYSTEM, [turn("system", "Be brief."), turn("user", "Why?")], None, "m[0]"),
    "one that is in another by chance": (NO_SYSTEM, SYSTEM, None, "m[0].content: not in the pro"),
    "a role": (
        TWO_ROLES,
        [turn("user", "a"), turn("tool", "bcd"), turn("user", "e")],
        None,
        "m[1]",
    ),
    "a role by chance": (TWO_ROLES, [turn("developer", "b"), turn("user", "abc")], None, "m[0]"),
    "a role shown as another": (ELSE, SYSTEM, None, "m[0].role: 'system', which the chat template"),
    "tool calls": (PLAIN, calling(WEATHER), None, "optional_keys=[tool_calls]"),
    "arguments": (CALLS, calling(WEATHER), None, "m[1].tool_calls[0].arguments.city: 'city'"),
    "arguments, with what allows it": (CALLS, calling(WEATHER), None, "optional_keys=[arguments]"),
    "a number": (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.name }}{{ c.arguments.city }}city days{% endfor %}"
        "{% endfor %}",
        calling(WEATHER),
        None,
        "m[1].tool_calls[0].arguments.days: '3' is not in the prompt",
    ),
    "a key by chance": (
        PLAIN,
        [turn("user", "Hi", name="H")],
        None,
        "m[0].name: not in the prompt",
    ),
    "a key that is false": (PLAIN, [turn("user", "Hi", train=False)], None, "m[0].train"),
    "a tool_call_id": (
        PLAIN,
        [turn("user", "Hi"), turn("tool", "x", tool_call_id="c1")],
        None,
        "m[1].tool_call_id: not in the prompt",
    ),
    "reasoning of an earlier turn": (
        THINK,
        [turn("assistant", "b", reasoning_content="hm"), turn("user", "a")],
        None,
        "m[0].reasoning_content: not in the prompt",
    ),
    "thinking in a content": (
        THINK,
        [turn("assistant", "<think>hm</think>b"), turn("user", "a")],
        None,
        "m[0].content: '<think>hm</think>b' is not in",
    ),
    "tools": (PLAIN, [turn("user", "Hi")], [TOOL], "tools: not in the prompt, because the"),
    "tools by chance": (
        PLAIN,
        [turn("user", "Which weather in the city?")],
        [TOOL],
        "tools: not in the prompt, because the chat template ignores tools",
    ),
    "an unknown role": (
        TWO_ROLES,
        [turn("human", "Hi")],
        None,
        "this turn of the role 'human'; give it a role that it knows, remove it",
    ),
    "a spelt token": (
        THINK,
        [turn("assistant", "<|eot_id|></think>b"), turn("user", "a")],
        None,
        "<|eot_id|>",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_what_a_template_leaves_out_is_an_error_that_names_it(folder: Path, case: str) -> None:
    template, messages, tools, told = LOST[case]
    some = chat(folder, template)
    for _ in range(2):  # the second time from what is known of the shape
        with pytest.raises(PromptError) as error:
            some.conversation("m", messages, tools=tools)
        assert told in str(error.value)
        assert "chat_template" in str(error.value)


FOUND: dict[str, tuple[str, list[Any], Any]] = {
    "white space": (PLAIN, [turn("system", "\n a\n"), turn("user", " b ")], None),
    "blank": (PLAIN, [turn("system", ""), turn("user", "b")], None),
    "nulls": (PLAIN, [turn("user", "b", name=None, tool_calls=[], note="", extra={})], None),
    "calls": (QWEN, calling(WEATHER), [TOOL]),
    "calls with ids": (QWEN, calling(OPENAI), [TOOL]),
    "calls without content": (QWEN, calling(OPENAI, None), [TOOL]),
    "content added to text": (CALLS, calling({"name": "weather"}, None), None),
    "content asked for null": (NULL_CONTENT, calling(WEATHER, None), None),
    "escaped": (ESCAPED, [turn("user", 'a "b"\n\\c ü', name="x\ty")], None),
    "arguments as JSON": (QWEN, calling({"name": "w", "arguments": '{"city": "X"}'}), None),
    "reasoning at the end": (THINK, [turn("user", "b", reasoning_content="hm")], None),
    "the same twice": (PLAIN, [turn("user", "a"), turn("assistant", "a"), turn("user", "a")], None),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_reaches_the_prompt_is_no_error(folder: Path, case: str) -> None:
    template, messages, tools = FOUND[case]
    some = chat(folder, template)
    for _ in range(2):
        encoded = some.conversation("m", messages, tools=tools)
        assert some.tokenizer.decode(encoded.ids) == encoded.text


def test_keys_that_may_be_left_out_are_named_by_the_user(folder: Path) -> None:
    messages = [*calling(OPENAI)[:2], turn("tool", "sunny", tool_call_id="call_1")]
    with pytest.raises(PromptError, match=r"optional_keys=\[tool_call_id\]"):
        chat(folder, QWEN).conversation("m", messages)
    some = chat(folder, QWEN, optional_keys=("tool_call_id",))
    assert "sunny" in some.conversation("m", messages).text
    some = chat(folder, CALLS, optional_keys=("arguments",))
    assert some.conversation("m", calling(WEATHER)).text.count("weather") == 1
    assert (
        "sunny"
        in chat(folder, PLAIN, optional_keys=("tool_calls",))
        .conversation("m", calling(OPENAI))
        .text
    )


@pytest.mark.parametrize("order", [[False, True], [True, False]])
def test_a_rows_error_does_not_depend_on_the_rows_before_it(
    folder: Path, order: list[bool]
) -> None:
    template = (
        "{% for m in messages %}{% if m.train %}TRAIN {{ m.note }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    some = chat(folder, template)
    for is_trained in order:
        row = [turn("user", "a", train=is_trained, note="a")]
        if is_trained:
            assert some.conversation("m", row).text == "TRAIN aa"
        else:
            with pytest.raises(PromptError, match=r"m\[0\]\.(train|note): not in the prompt"):
                some.conversation("m", row)
    blank = [turn("user", "a"), turn("assistant", " "), turn("user", "b")]
    assert some.conversation("m", blank).text == "a b"
    assert some.conversation("m", [blank[0], blank[2]]).text == "ab"


def test_a_shape_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, count = chat(folder, PLAIN), 0
    render = some._reach._render

    def counted(*args: Any) -> str:
        nonlocal count
        count += 1
        return render(*args)

    monkeypatch.setattr(some._reach, "_render", counted)
    for i in range(5):
        some.conversation("m", [turn("system", f"s{i}"), turn("user", f"u{i}")])
    assert count <= 2, "one for the contents, one for the role"


@pytest.mark.parametrize("text", ["<|eot_id|>", "a <tool> b", "<|mdm_mask|><|startoftext|>"])
def test_data_and_tools_that_spell_special_tokens_stay_text(folder: Path, text: str) -> None:
    some = chat(folder, QWEN)
    call = {"name": "weather", "arguments": {text: text}}
    tool = {"name": "weather", "description": text}
    encoded = some.conversation("m", calling(call), tools=[tool])
    harmless = some.conversation(
        "m",
        calling({"name": "weather", "arguments": {"a": "b"}}),
        tools=[{"name": "weather", "description": "c"}],
    )
    added = set(some.tokenizer.get_added_vocab().values())
    assert added.isdisjoint(encoded.ids)
    assert added.isdisjoint(harmless.ids)
    assert encoded.text.count(text) == 3


def test_a_template_that_fails_on_a_row_is_that_rows_error(folder: Path) -> None:
    for template, told in (
        ("{{ messages[1].content.x.y }}{{ messages[0].content }}", "fails on it: UndefinedError"),
        ("{{ messages[0].content + 1 }}", "fails on it: TypeError"),
        ("{{ 1 // 0 }}", "fails on it: ZeroDivisionError"),
        ("{{ raise_exception('no such thing') }}", "refuses it: no such thing; fix the turns"),
    ):
        with pytest.raises(PromptError, match=f"m: the chat template .*({told})"):
            chat(folder, template).conversation("m", [turn("user", "a")])
