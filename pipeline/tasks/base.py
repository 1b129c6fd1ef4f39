"""What is a task? The columns it needs of a row, and how row and generation become a program.

The program is complete: it passes when it runs to its end (pipeline/tasks/sandbox.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    columns: tuple[str, ...]
    """Carried columns that `program` reads."""
    program: Callable[[Mapping[str, Any], str], str]
    """(row, generated text) -> program"""


FUNCTION_COLUMNS = ("prompt", "entry_point", "test")
"""HumanEval's: signature and docstring, the function's name, code that defines check(candidate)."""


def with_test(code: str, row: Mapping[str, Any]) -> str:
    return f"{code}\n\n{row['test']}\n\ncheck({row['entry_point']})\n"
