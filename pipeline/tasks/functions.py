"""Functions that are completed: the prompt is a function's signature and docstring, the generation
its body, or the whole function, in prose and fences or not (pipeline/tasks/extract.py)."""

from collections.abc import Mapping
from typing import Any

from pipeline.tasks.base import FUNCTION_COLUMNS, Task, with_test
from pipeline.tasks.extract import code_of


def program(row: Mapping[str, Any], text: str) -> str:
    return with_test(code_of(row["prompt"], row["entry_point"], row["test"], text), row)


TASK = Task(FUNCTION_COLUMNS, program)
