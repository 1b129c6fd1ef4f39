"""The demo's task: the prompt is a function's signature and docstring, the generation its body."""

from collections.abc import Mapping
from typing import Any

from pipeline.tasks.base import FUNCTION_COLUMNS, Task, with_test


def program(row: Mapping[str, Any], text: str) -> str:
    return with_test(row["prompt"] + text, row)


TASK = Task(FUNCTION_COLUMNS, program)
