"""LiveCodeBench: does the answer pass the problem's public and private tests?

Problems without starter code read stdin and write stdout; the others complete a class. The tests
run one by one in the sandbox (livecodebench_driver.py).
"""

import json
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pipeline.tasks.base import Row, Task, future_first
from pipeline.tasks.extract import code_of, without_thinking
from pipeline.tasks.hidden_tests import TestsError, tests_of
from pipeline.tasks.livecodebench_driver import TEST_S
from pipeline.tasks.pieces import pieces
from pipeline.tasks.sandbox import Limits
from pipeline.tasks.statements import num_code_lines, statements_of
from pipeline.tasks.syntax import normal, whole

DRIVER = Path(__file__).with_name("livecodebench_driver.py")
CLASS = "Solution"
MEMORY_BYTES, FILE_BYTES = 4 << 30, 64 << 20
MAX_TESTS = 1000


def program(row: Row, text: str) -> str:
    """
    Raises:
        TestsError: the row's tests cannot be read.
    """
    function = function_name(row)
    code = script_of(text) if function is None else class_of(text, function)
    call = f"run_tests({future_first(code)!r}, {tests(row)!r}, {function!r})"
    return f"{_driver()}\n\n{call}\n"


def tests(row: Row) -> list[dict[str, Any]]:
    return _tests(row["public_test_cases"], row["private_test_cases"])


@lru_cache(maxsize=1)
def _tests(public: str, private: str) -> list[dict[str, Any]]:
    found = []
    for column, text in (("public_test_cases", public), ("private_test_cases", private)):
        try:
            found += tests_of(text)
        except TestsError as error:
            raise TestsError(f"{column}: {error}; give the column as it is published") from error
    return found


def function_name(row: Row) -> str | None:
    """The function that is called; None if the answer is a script."""
    found = json.loads(row["metadata"] or "{}").get("func_name")
    return None if found is None else str(found)


def script_of(text: str) -> str:
    """The piece of the answer that is Python and has the most lines of code, the last of several;
    the answer as it is if none is."""
    answer = without_thinking(normal(text))
    best, most = answer, 0
    for piece in pieces(answer):
        run = whole(piece)
        if run is not None and (lines := num_code_lines(statements_of(run))) >= max(1, most):
            best, most = piece, lines
    return best


def class_of(text: str, function: str) -> str:
    """The answer's class Solution, with what it needs; without one, the function by itself."""
    answer = normal(text)
    return code_of("", CLASS if CLASS in answer else function, "", answer)


def limits(row: Row, given: Limits) -> Limits:
    """What LiveCodeBench allows: TEST_S for each test, and some seconds."""
    num_tests = min(MAX_TESTS, len(tests(row)))
    return replace(
        given,
        timeout_s=(TEST_S + 1) * num_tests + 5,
        cpu_s=60,
        memory_bytes=max(given.memory_bytes, MEMORY_BYTES),
        file_bytes=max(given.file_bytes, FILE_BYTES),
    )


def categories(row: Row) -> dict[str, str]:
    named = {name: row[name] for name in ("difficulty", "platform")}
    return {name: str(value) for name, value in named.items() if value is not None}


@cache
def _driver() -> str:
    return DRIVER.read_text()


TASK = Task(
    columns=("public_test_cases", "private_test_cases", "metadata", "difficulty", "platform"),
    program=program,
    limits=limits,
    longest_s=(TEST_S + 1) * MAX_TESTS + 5,
    categories=categories,
    nullable=frozenset({"metadata", "difficulty", "platform"}),
)
