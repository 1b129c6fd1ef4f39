"""A checkpoint's chat templates: which is taken, and what is wrong is said once, at the start."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.text.chat import ChatTokenizer
from engine.text.messages import ChatOptions
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from tests.engine.text.tokenizer_folders import byte_level, save

SHOWS = "{{ messages[0].content }}"
TURN = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(byte_level(), tmp_path_factory.mktemp("tokenizer"), None)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    for file in original.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def put(folder: Path, template: Any) -> Path:
    """Write the template into tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    return folder


def named(**templates: str) -> list[dict[str, str]]:
    return [{"name": name, "template": text} for name, text in templates.items()]


def told_by(folder: Path, chat_template: str | None = None, **config: Any) -> str:
    with pytest.raises(UserError) as error:
        Prompter(folder, PromptConfig(chat_template=chat_template, **config), 100)
    return str(error.value)


BROKEN = {
    "{% for m in messages %}{{ m.content }": "line 1: unexpected '}'",
    "{% for m in messages %}{{ m.content }}": "line 1: Unexpected end of template",
    "\n{% if x %}{{ messages | shorten }}{% endif %}": "line 2: there is no filter 'shorten'",
    "{% if messages is lovely %}x{% endif %}": "line 1: there is no test 'lovely'",
    "{% include 'other' %}" + SHOWS: "on a single user turn, the chat template fails on it: ",
    "{{ messages[0].content.x.y }}": "the chat template fails on it: UndefinedError",
    "{{ messages[0]['content'] + 1 }}": "on a single user turn, the chat template fails on it",
    "You are a robot.": "on a single user turn, the chat template leaves out a content",
}


@pytest.mark.parametrize("template", BROKEN)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja", "mine.jinja"])
def test_a_broken_template_is_named_with_its_file(folder: Path, template: str, place: str) -> None:
    if place == "tokenizer_config.json":
        put(folder, template)
    else:
        (folder / place).write_text(template)
    told = told_by(folder, str(folder / place) if place == "mine.jinja" else None)
    assert BROKEN[template] in told
    assert str(folder / place) in told
    assert "prompt.chat_template" in told


def test_tags_and_filters_that_transformers_adds_are_valid(folder: Path) -> None:
    put(
        folder,
        "{%- for m in messages %}{%- if not m.content %}{% continue %}{% endif %}{% generation %}"
        "{{ m.content }}{%- endgeneration -%}{{ m | tojson(indent=2) }}{% endfor %}"
        "{{ strftime_now('%Y') and '' }}{% set ns = namespace(a=1) %}{{ dict(a=1).a }}",
    )
    assert "hi" in ChatTokenizer(folder).conversation("m", TURN).text


def test_of_several_templates_default_is_taken_and_tool_use_for_tools(folder: Path) -> None:
    put(
        folder,
        named(
            default=f"A {SHOWS}", tool_use=f"B {SHOWS}{{{{ tools | tojson }}}}", rag=f"C {SHOWS}"
        ),
    )
    tools = [{"name": "f"}]
    chat = ChatTokenizer(folder)
    assert chat.conversation("m", TURN).text == "A hi"
    assert chat.conversation("m", TURN, tools=tools).text == 'B hi[{"name": "f"}]'
    assert chat.template.source == f"{folder / 'tokenizer_config.json'}, chat_template 'default'"
    chat = ChatTokenizer(folder, options=ChatOptions(chat_template="rag"))
    assert chat.conversation("m", TURN).text == "C hi"


def test_templates_in_files_of_their_own(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(f"A {SHOWS}")
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "rag.jinja").write_text(f"C {SHOWS}")
    (more / "bad.jinja").write_text("{{ x }")
    assert ChatTokenizer(folder).conversation("m", TURN).text == "A hi"
    chat = ChatTokenizer(folder, options=ChatOptions(chat_template="rag"))
    assert chat.conversation("m", TURN).text == "C hi"
    assert f"{more / 'bad.jinja'}: the chat template is broken" in told_by(folder, "bad")


def test_several_without_a_default_must_be_chosen_from(folder: Path) -> None:
    put(folder, named(tool_use=SHOWS, rag=f"C {SHOWS}"))
    told = told_by(folder)
    assert "the chat templates tool_use, rag, and none of them is called default" in told
    assert "prompt.chat_template=NAME" in told
    told = told_by(folder, "ragg")
    assert "prompt.chat_template='ragg': no such file" in told
    assert "has the templates tool_use, rag" in told
    some = Prompter(folder, PromptConfig(chat_template="rag"), 100)
    assert some.text(some.token_ids({"prompt": "hi"})) == "C hi"


@pytest.mark.parametrize("template", [5, ["x"], [{"name": "a"}], {"default": 3}])
def test_templates_that_are_no_text_are_refused(folder: Path, template: Any) -> None:
    assert str(folder) in told_by(put(folder, template))


def test_raw_text_needs_no_template(folder: Path) -> None:
    put(folder, "{{ broken }")
    some = Prompter(folder, PromptConfig(chat=False), 100)
    assert some.text(some.token_ids({"prompt": "hi"})) == "hi"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ messages[-1].content }}", "leaves"),
        (
            "{% if messages[0].role == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}" + SHOWS,
            "System role not supported",
        ),
    ],
)
def test_a_system_turn_that_the_template_does_not_take_is_refused_at_the_start(
    folder: Path, template: str, told: str
) -> None:
    put(folder, template)
    Prompter(folder, PromptConfig(), 100)
    said = told_by(folder, system="Be brief.")
    assert "prompt.system='Be brief.': with this system turn" in said
    assert told in said
