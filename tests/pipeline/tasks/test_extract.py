"""Which code of an answer is run: right answers pass in every form that models give them, wrong
ones in none."""

import re

import pytest

from pipeline.tasks import TASKS
from pipeline.tasks.sandbox import Limits, run_program
from tests.pipeline.tasks.answers import (
    BODY,
    BROKEN,
    PROMPT,
    RIGHT,
    ROW,
    SHORT,
    SIGNATURE,
    TEST,
    fence,
)

LIMITS = Limits(timeout_s=30.0, cpu_s=30)


DRIVER = """
failed = {{}}
for name, program in {programs!r}.items():
    try:
        exec(compile(program, "program.py", "exec"), {{"__name__": "candidate"}})
    except BaseException as error:
        failed[name] = f"{{type(error).__name__}}: {{error}}\\n{{program}}"
if failed:
    raise AssertionError(failed)
"""
"""Runs many programs in one sandbox, which takes a tenth of a second to start."""


def program_of(answer: str, *, task: str = "humaneval", **row: str) -> str:
    return TASKS[task].program({**ROW, **row}, answer)


def reason(answer: str, **row: str) -> str:
    return run_program(program_of(answer, **row), LIMITS).reason


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("task", ["humaneval", "functions"])
def test_right_answers_pass(kind: str, task: str) -> None:
    programs = {name: program_of(answer, task=task) for name, answer in RIGHT[kind].items()}
    outcome = run_program(DRIVER.format(programs=programs), LIMITS)
    assert outcome.passed, re.sub(r"\\+n", "\n", outcome.reason)


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_wrong_answers_fail(answer: str) -> None:
    assert reason(answer).startswith("failed: ")


DOCSTRING = '    """Sum of a list."""\n'
PROMPTS = {
    "no docstring": ("def total(xs):\n", "    return sum(xs)"),
    "no line end": (f"def total(xs):\n{DOCSTRING}".rstrip(), "    return sum(xs)"),
    "line end in the answer": (f"def total(xs):\n{DOCSTRING}".rstrip(), "\n    return sum(xs)"),
    "ends in mid-line": ("def total(xs): return", " sum(xs)\n\nprint(total([1"),
    "ends in the body": (
        "def total(xs):\n    if not xs:\n",
        "        return 0\n    return sum(xs)",
    ),
    "two spaces": ('def total(xs):\n  """Sum."""\n', "return sum(xs)"),
    "tabs": ('def total(xs):\n\t"""Sum."""\n', "s = sum(xs)\nreturn s"),
    "CRLF": (PROMPT.replace("\n", "\r\n"), BODY),
    "decorated": (f"@(lambda f: f)\ndef total(xs):\n{DOCSTRING}", "    return sum(xs)"),
    "decorated, whole function": (f"@(lambda f: f)\ndef total(xs):\n{DOCSTRING}", SHORT),
    "in a fence": (f"Complete this:\n\n{fence(PROMPT)}", BODY),
    "in a fence, whole function": (f"Complete this:\n\n{fence(PROMPT)}", SIGNATURE + BODY),
    "in a fence, no docstring": (f"Do:\n{fence('def total(xs):' + chr(10))}", "return sum(xs)"),
    "prose": ("Write a function total that adds up a list.", fence(SHORT)),
    "prose with a helper": (
        f"Given:\n{fence('def add(a, b):' + chr(10) + '    return a + b')}\nWrite total.",
        "def total(xs):\n    s = 0\n    for x in xs:\n        s = add(s, x)\n    return s\n",
    ),
    "future import": (
        f"from __future__ import annotations\n\n\ndef total(xs: No):\n{DOCSTRING}",
        SHORT,
    ),
    "empty": ("", fence(SHORT)),
}


@pytest.mark.parametrize(("prompt", "answer"), PROMPTS.values(), ids=PROMPTS.keys())
def test_prompts_of_every_kind(prompt: str, answer: str) -> None:
    assert reason(answer, prompt=prompt) == "passed"


def test_an_asynchronous_function() -> None:
    test = f"import asyncio\n\n\n{TEST.replace('candidate([', 'run([')}".replace(
        "(candidate):\n", "(candidate):\n    run = lambda xs: asyncio.run(candidate(xs))\n"
    )
    prompt = PROMPT.replace("def total", "async def total")
    for answer in (fence(SHORT.replace("def", "async def")), "    return sum(xs)\n"):
        assert reason(answer, prompt=prompt, test=test) == "passed"
    assert reason(SHORT, prompt=prompt, test=test).startswith("failed: ValueError")


SOLUTION = f"class Solution:\n    def total(self, xs):\n    {DOCSTRING}"


@pytest.mark.parametrize(
    "answer",
    [
        fence(f"{SOLUTION}        return sum(xs)\n\n\nprint(Solution().total(None))\n"),
        "        return sum(xs)\n",
        "return sum(xs)",
        fence("return sum(xs)\n"),
    ],
)
def test_an_entry_point_that_is_a_method(answer: str) -> None:
    assert reason(answer, prompt=SOLUTION, entry_point="Solution().total") == "passed"
    wrong = answer.replace("sum", "max")
    assert reason(wrong, prompt=SOLUTION, entry_point="Solution().total").startswith("failed: ")


def test_the_test_may_use_what_the_prompt_or_the_answer_defines() -> None:
    test = TEST.replace("3", "half(6)").replace("== 0", "== ZERO")
    assert reason(fence(f"ZERO = 0\n\n\n{SHORT}"), test=test) == "passed"


def test_what_no_one_can_run_fails_with_its_own_error() -> None:
    assert reason("I cannot.").startswith("failed: SyntaxError: ")
    assert reason("def totals(): pass", prompt="", entry_point="total").startswith(
        "failed: NameError: name 'total'"
    )
