"""MBPP, full or sanitized: does the function of the answer pass the row's three asserts?

The function's name is the one that the asserts call. The column `code`, a reference solution, is
not read.
"""

import ast
import builtins
import re
from collections.abc import Sequence

from pipeline.tasks.base import Row, Task, with_code
from pipeline.tasks.extract import code_of
from pipeline.tasks.syntax import normal, parse

QUOTED = re.compile(r"\s*(['\"])(.*)\1\s*", re.DOTALL)


def program(row: Row, text: str) -> str:
    imports, tests = row.get("test_imports") or [], row["test_list"]
    test = "\n".join([*imports, row.get("test_setup_code") or "", *tests])
    code = code_of("", entry_point(tests), test, without_marks(normal(text)))
    return with_code(code, f"{test}\n")


def entry_point(tests: Sequence[str]) -> str:
    """The function that the asserts test: the first name called, from the outside in, that is no
    builtin's: `f` of `assert set(f([1])) == {1}`."""
    tree = parse("\n".join(tests))
    for node in ast.walk(tree) if isinstance(tree, ast.Module) else ():
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and not hasattr(builtins, called.id):
            return called.id
    return "candidate"  # no answer has it, so the asserts themselves say what is missing


def without_marks(text: str) -> str:
    """The code between [BEGIN] and [DONE], where an answer has them, as few-shot prompts have it;
    they may put it in quotes."""
    behind = text.partition("[BEGIN]")[2] or text
    code, mark, _ = behind.partition("[DONE]")
    quoted = QUOTED.fullmatch(code) if mark or behind is not text else None
    return quoted[2] if quoted else code


TASK = Task(
    columns=("test_list", "test_setup_code", "test_imports"),
    program=program,
    nullable=frozenset({"test_setup_code", "test_imports"}),
)
