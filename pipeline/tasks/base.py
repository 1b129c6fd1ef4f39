"""What a task is: a way to turn a row and its generation into a program that tests the generation.

The generation passes if the program runs to its end without an error (pipeline/tasks/sandbox.py).
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.tasks.statements import names_of
from pipeline.tasks.syntax import parse


@dataclass(frozen=True, slots=True)
class Task:
    columns: tuple[str, ...]
    """The columns of the row that `program` reads; the run must carry them."""
    program: Callable[[Mapping[str, Any], str], str]
    """(row, generated text) -> program"""


FUNCTION_COLUMNS = ("prompt", "entry_point", "test")
"""HumanEval's columns: the function's signature and docstring; its name; and code that defines
check(candidate)."""


def with_test(code: str, row: Mapping[str, Any]) -> str:
    """The program that defines the function, and then runs the row's test on it.

    If the test has a name of the code (a solution may well have a helper `check`), it runs in a
    copy of the code's names, so that the code keeps its own.
    """
    code = future_first(code)
    test = f"{row['test']}\n\ncheck({row['entry_point']})\n"
    if names_of(code)[0] & names_of(test)[0]:
        test = f"exec({test!r}, dict(globals()))\n"
    return future_first(f"{code}\n\n{test}")


def future_first(program: str) -> str:
    """The program with its `from __future__` imports in front, the only place for them."""
    tree = parse(program)
    if not isinstance(tree, ast.Module):
        return program
    lines = [line.encode() for line in program.split("\n")]
    names = []
    for node in reversed(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            names += [alias.name for alias in node.names]
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
            lines[first : last + 1] = [before + b"pass" + after]
    if not names:
        return program
    imports = f"from __future__ import {', '.join(dict.fromkeys(names))}\n"
    return imports + b"\n".join(lines).decode()
