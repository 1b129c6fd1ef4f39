"""prompt.template: what is a column, what is text, and what is refused."""

import pytest

from engine.errors import UserError
from pipeline.config.job import PromptConfig
from pipeline.config.template import Template

COLUMNS = [
    *(
        "prompt",
        "question",
        "problem-statement",
        "the question",
        "meta.title",
        "meta",
        "x",
        "topic",
    ),
    *("Ergänzung", "q1", "a}b", "2nd", "why?", "user/name", "c#", "longer name", "longer"),
]


def filled(text: str) -> str:
    """The template with each field as <column|inner>."""
    template = Template(text, COLUMNS, "prompt")
    return template.fill({its: f"<{its.column}|{its.inner}>" for its in template.fields})


def refusal(text: str, columns: list[str] | None = None, prompt_column: str = "prompt") -> str:
    with pytest.raises(UserError) as error:
        Template(text, columns or COLUMNS, prompt_column)
    return str(error.value)


@pytest.mark.parametrize("name", COLUMNS)
def test_braces_around_any_column_are_that_column(name: str) -> None:
    assert filled(f"a {{{name}}} b") == f"a <{name}|> b"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{meta.title}", "<meta.title|>"),  # the column of this name comes before the field
        ("{meta.author}", "<meta|author>"),
        ("{meta.author.first name}", "<meta|author.first name>"),
        ("{meta.title.x}", "<meta.title|x>"),
        ("{longer name}{longer}", "<longer name|><longer|>"),
        ("{prompt}{prompt.a}", "<prompt|><prompt|a>"),
    ],
)
def test_dots_reach_into_a_column(text: str, wanted: str) -> None:
    assert filled(text) == wanted


TEXT = [
    *('{"a": 1}', '{ "a": 1 }', "{}", "{ }", "{ x; }", "{0}", "{1 + 1}", "{x = 1}", "{a, b}"),
    *("{\n  return\n}", "{{", "}}", "{", "}", "{{}}", "{{0}}", '{{"a": {"b": 1}}}', "{name: str}"),
    *("f(x) { return x; }", "{3,5}", "{%- if a %}", "{# note #}", "{return x;}", "{unclosed"),
]


@pytest.mark.parametrize("text", TEXT)
def test_other_braces_are_text(text: str) -> None:
    assert filled("{prompt}" + text) == "<prompt|>" + text
    assert filled(text + "{prompt}") == text + "<prompt|>"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{word}}", "{word}"),
        ("{{some words}}", "{some words}"),
        ("{{a-b}} {{a.b}}", "{a-b} {a.b}"),
        ("{{{word}}}", "{{word}}"),
        (r"\boxed{{answer}}", r"\boxed{answer}"),
        ("{{topic}} {topic}", "{topic} <topic|>"),
        ("{{ topic }} {topic}", "{ topic } <topic|>"),
        ("{{the question}}{the question}", "{the question}<the question|>"),
    ],
)
def test_double_braces_are_literal_braces(text: str, wanted: str) -> None:
    assert filled("{prompt}" + text) == "<prompt|>" + wanted


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("{questoin}", "question"),
        ("{Question}", "question"),
        ("{the qestion}", "the question"),
        ("{problem_statement}", "problem-statement"),
        ("{problem statement}", "problem-statement"),
        ("{Topic}", "topic"),
        ("{user-name}", "user/name"),
        ("{the question!}", "the question"),
    ],
)
def test_what_looks_like_a_column_stops_with_the_nearest_name(text: str, nearest: str) -> None:
    told = refusal("{prompt} " + text)
    assert f"{text} not in the data, which has prompt, question" in told
    assert f"the nearest to {text} is {{{nearest}}}" in told
    assert f"write {{{text}}} for braces that are text" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{word}", "{word} not in the data"),
        ("{some words}", "{some words} not in the data"),
        ("{a-b} {a.b}", "{a-b}, {a.b} not in the data"),
        ("{ question }", "write {question} without spaces"),
        ("{x:.2f}", "numbers are not formatted"),
        ("{x!r}", "numbers are not formatted"),
        ("{meta[title]}", "{COLUMN.FIELD}"),
        ("{{topic}}", "{{topic}} is the literal text {topic}, and the column 'topic' is nowhere"),
        ("{{ topic }}", "write {topic} for the column's text"),
        ("{{{topic}}}", "{{topic}} is the literal text"),
    ],
)
def test_a_template_that_would_change_the_prompt_in_silence_is_refused(
    text: str, told: str
) -> None:
    assert told in refusal("{prompt} " + text)


def test_the_prompt_column_goes_by_both_names() -> None:
    template = Template("{prompt}{q}", ["q", "prompt"], "q")
    assert [field.column for field in template.fields] == ["q"]
    assert "set prompt.column for {prompt}" in refusal("{prompt}", ["text"])
    assert "{{prompt}} is the literal text {prompt}" in refusal("{a}{{prompt}}", ["a", "q"], "q")


def test_a_template_of_no_column_is_refused() -> None:
    assert "names no column" in refusal('{"a": 1}')
    for text in ("Say it.", "{{topic}}", "{}", "About {{ topic }}."):
        with pytest.raises(UserError, match=r"names no column.*in single braces"):
            PromptConfig(template=text)


TYPED = [r"Q: {prompt}\nA:", r"{prompt}\n", r"\n{prompt}", r"{prompt}\n\nA", r"a\r\n{prompt}"]


@pytest.mark.parametrize("text", TYPED)
@pytest.mark.parametrize("field", ["template", "system"])
def test_a_typed_line_break_is_refused(text: str, field: str) -> None:
    with pytest.raises(UserError, match=rf"prompt\.{field}=.*a backslash and an n.*press Enter"):
        PromptConfig(**{field: text})


@pytest.mark.parametrize(
    "text",
    [
        r"Is $\nabla {x} \neq \nu$ \not\in?",
        "Q: {x}\nA:",
        'Write {x}\nprint("a\\n")',
        r"C:\temp\{x}",
    ],
)
def test_line_breaks_latex_and_code_are_taken(text: str) -> None:
    config = PromptConfig(template=text, system=text)
    assert config.template == text
