"""HumanEval for models that answer in prose: find the code in the answer, then test it.

1. Find the code. It is the first fenced block marked as Python, else the first fenced block, else
   the whole answer. A block without a closing fence (cut off at max_new_tokens) ends with the
   answer.
2. Make it a whole function. Code that defines the entry point is used as it is, after the lines
   that precede the function in the prompt (imports, helpers). Any other code is taken as the body
   of the prompt's function.
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
    # If the answer is in a list or a quote, the whole code is indented.
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
    """The prompt followed by the function's body, which is indented if it is not yet."""
    lines = body.strip("\n")
    shifted = textwrap.indent(textwrap.dedent(lines), INDENT)
    # If the first line is not indented, then either no line is, or only the first one lost its
    # indent.
    bodies = [lines, shifted] if lines[:1].isspace() else [shifted, INDENT + lines]
    head = prompt if prompt.endswith("\n") else prompt + "\n"
    return next((head + b for b in bodies if _is_python(head + b)), head + bodies[0])


def _definition(entry_point: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(entry_point)}\b", re.MULTILINE)


def _is_python(code: str) -> bool:
    try:
        with warnings.catch_warnings():  # such as those about invalid escape sequences
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


TASK = Task(FUNCTION_COLUMNS, program)
