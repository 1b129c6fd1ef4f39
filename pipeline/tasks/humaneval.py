"""HumanEval with a model that answers in prose: the code is found in the answer, then tested.

The code is the first fence marked Python, else the first fence, else the whole answer; a fence that
the length limit cut off ends with the answer. Code that defines the entry point stands for itself,
behind what the prompt has in front of it (imports, helpers); any other code is the body that
continues the prompt.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

from pipeline.tasks.base import FUNCTION_COLUMNS, Task, with_test

FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
PYTHON = ("python", "python3", "py")
INDENT = " " * 4


def program(row: Mapping[str, Any], text: str) -> str:
    prompt, entry_point = row["prompt"], row["entry_point"]
    code = extract_code(text)
    # An answer inside a list or a quote is indented as a whole.
    dedented = textwrap.dedent(code)
    if _definition(entry_point).search(dedented):
        return with_test(f"{before_entry_point(prompt, entry_point)}\n{dedented}", row)
    return with_test(continue_prompt(prompt, code), row)


def extract_code(answer: str) -> str:
    fences = [(match[1].lower(), match[2]) for match in FENCE.finditer(answer)]
    marked = [code for language, code in fences if language in PYTHON]
    return next(iter(marked or [code for _, code in fences]), answer)


def before_entry_point(prompt: str, entry_point: str) -> str:
    found = _definition(entry_point).search(prompt)
    return prompt[: found.start()] if found else prompt


def continue_prompt(prompt: str, body: str) -> str:
    """Prompt and body, the body indented as far as it lacks it."""
    lines = body.strip("\n")
    shifted = textwrap.indent(textwrap.dedent(lines), INDENT)
    # Not indented at the front: nothing is, or only the first line has lost it.
    bodies = [lines, shifted] if lines[:1].isspace() else [shifted, INDENT + lines]
    head = prompt if prompt.endswith("\n") else prompt + "\n"
    return next((head + b for b in bodies if _is_python(head + b)), head + bodies[0])


def _definition(entry_point: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(entry_point)}\b", re.MULTILINE)


def _is_python(code: str) -> bool:
    try:
        with warnings.catch_warnings():  # a generation's odd escapes are no news to the caller
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


TASK = Task(FUNCTION_COLUMNS, program)
