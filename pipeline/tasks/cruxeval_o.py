"""CRUXEval-O: is the value that the answer gives what the function returns?

The value stands behind `==` in the answer's assertion, between [ANSWER] and [/ANSWER] if there are
such tags. It may be any expression that does not call the function; its value must be made of
Python's own types, so that no object can say of itself that it is equal to everything.
"""

import ast
import re

from pipeline.tasks.base import Row, Task
from pipeline.tasks.extract import without_thinking
from pipeline.tasks.pieces import pieces
from pipeline.tasks.statements import calls
from pipeline.tasks.syntax import normal, parse

FUNCTION = "f"
CHECK = """
def _is_plain(value):
    if isinstance(value, dict):
        value = [its for pair in value.items() for its in pair] if type(value) is dict else None
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))
    return type(value) in (str, bytes, int, float, complex, bool, type(None), range, type(...))

def _check(answer, output):
    assert _is_plain(answer), f"the answer is of type {type(answer).__name__}"
    assert answer == output, f"the answer is {answer!r}"
"""


def program(row: Row, text: str) -> str:
    value = value_of(normal(text))
    if value is None:
        return "raise SyntaxError('the answer gives no value')"
    if calls(value, FUNCTION):
        return "raise ValueError('the answer calls the function')"
    output = ast.unparse(value)
    return f"{row['code']}\n{CHECK}\n_check({output}, {row['output']})\n"


def value_of(text: str) -> ast.expr | None:
    """The value that the answer gives; None if it is no Python."""
    answer = without_thinking(text)
    _, mark, behind = answer.rpartition("[ANSWER]")
    part = (behind if mark else answer).partition("[/ANSWER]")[0].strip()
    for piece in dict.fromkeys([part, *pieces(part)]):
        if (value := _asserted(piece)) is not None:
            return value
    for line in reversed(part.splitlines()):
        if (value := _asserted(line.strip().strip("`"))) is not None:
            return value
    behind = part.partition("==")[2] or part
    return _expression(behind.strip()) or _expression(behind.strip().split("\n")[0])


def _asserted(source: str) -> ast.expr | None:
    """The value in the last comparison of a module with the function's call."""
    tree = parse(source)
    found = None
    for statement in tree.body if isinstance(tree, ast.Module) else ():
        test = getattr(statement, "test", getattr(statement, "value", None))
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq):
            left, right = test.left, test.comparators[0]
            if calls(left, FUNCTION):
                found = right
            elif calls(right, FUNCTION):
                found = left
    return found


def _expression(source: str) -> ast.expr | None:
    source = re.sub(r"^assert\s+", "", source)
    tree = parse(source)
    if isinstance(tree, ast.Module) and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        return tree.body[0].value
    return None


TASK = Task(columns=("code", "input", "output"), program=program, nullable=frozenset({"input"}))
