"""What a task is: a way to turn a row and its generation into a program that tests the generation.

The generation passes if the program runs to its end without an error (pipeline/tasks/sandbox.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
    """The program that defines the function, and then runs the row's test on it."""
    return f"{code}\n\n{row['test']}\n\ncheck({row['entry_point']})\n"
