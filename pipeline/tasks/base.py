"""What a task is: how a row and its generation are judged.

A task of code turns them into a program, and the generation passes if the program runs to its end
without an error (pipeline/tasks/sandbox.py). Another task looks at the text itself and gives a
verdict.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from engine.errors import UserError
from pipeline.tasks.sandbox import Limits
from pipeline.tasks.statements import names_of
from pipeline.tasks.syntax import parse

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a task beside pass@k: the mean of a value over rows."""

    name: str
    """The key in Verdict.values, and the column of scores.parquet."""
    weight: str | None = None
    """The value that says how often a row counts; None: each row counts once."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is found in one text."""

    passed: bool
    reason: str
    """`passed`, or `failed: WHY`."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Name -> value, of all metrics of the task and of their weights."""
    tallies: tuple[tuple[str, str, float], ...] = ()
    """(table, category, value), each counted once in the mean of its category."""


@dataclass(frozen=True, slots=True)
class Task:
    columns: tuple[str, ...]
    """The columns of the row that judging reads; the run must carry them."""
    program: Callable[[Row, str], str] | None = None
    """(row, generated text) -> program. Either this or `verdict`."""
    verdict: Callable[[Row, str], Verdict] | None = None
    """(row, generated text) -> what is found in the text; the text of a failed row is ''."""
    metrics: tuple[Metric, ...] = ()
    limits: Callable[[Row, Limits], Limits] | None = None
    """(row, the limits that were asked for) -> those of the row's program."""
    categories: Callable[[Row], Mapping[str, str]] | None = None
    """Row -> table -> the category in which it counts."""
    nullable: frozenset[str] = frozenset()
    """Those of `columns` that may be null in a row, or missing from the run."""
    longest_s: float = 0.0
    """The longest that `limits` allows a program."""
    modules: tuple[str, ...] = ()
    """What `verdict` imports that the package does not bring by itself,"""
    extra: str = ""
    """and the extra of the package that brings it."""

    def __post_init__(self) -> None:
        assert (self.program is None) != (self.verdict is None), "a task judges in one way"

    def check_installed(self, name: str) -> None:
        """
        Raises:
            UserError: what the task needs is not installed.
        """
        missing = [module for module in self.modules if find_spec(module) is None]
        if missing:
            raise UserError(
                f"task={name!r}: needs {', '.join(missing)}, not installed here; "
                f'pip install "dllm-pipeline[{self.extra}]"'
            )


FUNCTION_COLUMNS = ("prompt", "entry_point", "test")
"""HumanEval's columns: the function's signature and docstring; its name; and code that defines
check(candidate)."""


def with_test(code: str, row: Row) -> str:
    """The program that defines the function, and then runs the row's test on it."""
    return with_code(code, f"{row['test']}\n\ncheck({row['entry_point']})\n")


def with_code(code: str, test: str) -> str:
    """The program that runs the code, and then the test.

    If the test has a name of the code (a solution may well have a helper `check`), it runs in a
    copy of the code's names, so that the code keeps its own.
    """
    code = future_first(code)
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
