"""The answer as the body of the prompt's function: where does it end, and how is it indented?"""

import ast
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.tasks.pieces import pieces
from pipeline.tasks.statements import DEFINITIONS
from pipeline.tasks.syntax import longest_start, own_scope

INDENT = " " * 4


@dataclass(frozen=True, slots=True)
class OpenFunction:
    """The function (or class) at the end of a prompt, whose body the answer may be."""

    prompt: str
    """The code of the prompt, up to where the answer continues it."""
    num_head_lines: int
    """Lines in front of the function: imports and helpers."""
    line: int
    """Of its `def`, counted from 1."""
    indent: str
    """Of the body."""

    @property
    def head(self) -> str:
        return "\n".join(self.prompt.split("\n")[: self.num_head_lines])


@dataclass(frozen=True, slots=True)
class Body:
    code: str
    """The prompt and the body."""
    returns: bool
    """Whether the body returns or yields a value. If not, it is perhaps no body."""
    has_same_function: bool
    """Whether a function in the body has the name of the prompt's function."""
    num_lines: int


def open_function(prompt: str, name: str) -> OpenFunction | None:
    """The last function of this name in the prompt; None if there is none. In a prompt that is not
    all Python, it is looked for between fences."""
    for code in (prompt, *pieces(prompt)):
        # A function without a docstring has no body yet.
        for filled in (code, f"{code}\n{INDENT}pass"):
            lines = filled.split("\n")
            run = longest_start(lines)
            found = [n for n in run.tree.body if isinstance(n, DEFINITIONS) and n.name == name]
            if not found:
                continue
            node = found[-1]
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            innermost = [n for n in ast.walk(node) if isinstance(n, DEFINITIONS)][-1]
            body = lines[innermost.body[0].lineno - 1]
            indent = body[: len(body) - len(body.lstrip())]
            is_own_line = innermost.body[0].lineno > innermost.lineno
            return OpenFunction(code, first - 1, node.lineno, indent if is_own_line else INDENT)
    return None


def direct_body(function: OpenFunction, answer: str) -> Body | None:
    """The answer as a body from its first line on, if it returns a value; it may lack its indent,
    unless it has a function of the same name and so is rather the whole function."""
    separators = ("",) if function.prompt.endswith("\n") else ("", "\n")
    body = _longest(_continued(function, separator + answer) for separator in separators)
    if not (body and body.returns):
        body = _longest(_continued(function, form) for form in _forms(function, answer))
        if body and body.has_same_function:
            return None
    return body if body and body.returns else None


def best_body(function: OpenFunction, answer: str) -> Body | None:
    """The longest body in the answer or between its fences, the last one of several; one that
    returns a value is better than any other."""
    best = None
    for piece in [answer, *pieces(answer, reach=1)]:
        body = _longest(_continued(function, form) for form in _forms(function, piece))
        if body and (best is None or _rank(body) >= _rank(best)):
            best = body
    return best


def _forms(function: OpenFunction, text: str) -> Iterator[str]:
    """The text as it is, indented, and with an indented first line: models drop these indents."""
    code = text.strip("\n")
    newline = "" if function.prompt.endswith("\n") else "\n"
    yield newline + code
    yield newline + textwrap.indent(textwrap.dedent(code), function.indent)
    yield newline + function.indent + code.lstrip()


def _rank(body: Body) -> tuple[bool, int]:
    return body.returns, body.num_lines


def _longest(bodies: Iterable[Body | None]) -> Body | None:
    """The first of the longest."""
    return max((body for body in bodies if body), key=_rank, default=None)


def _continued(function: OpenFunction, text: str) -> Body | None:
    """The prompt's function with the lines of the text that belong to it and are Python; None if
    these do nothing."""
    lines = (function.prompt + text).split("\n")
    run = longest_start(lines)
    node = next((n for n in run.tree.body if n.lineno == function.line), None)
    if not isinstance(node, DEFINITIONS):
        return None
    before = function.prompt.split("\n")
    end = (len(before), len(before[-1].encode()))
    own = own_scope(node) if not isinstance(node, ast.ClassDef) else ast.walk(node)
    new = [n for n in own if isinstance(n, ast.stmt | ast.expr) and n is not node]
    new = [n for n in new if (n.end_lineno or 0, n.end_col_offset or 0) > end]
    if not any(isinstance(n, ast.stmt) and _does_something(n) for n in new):
        return None
    assert node.end_lineno, "the parser gives every node an end"
    return Body(
        code="\n".join(lines[: node.end_lineno]) + "\n",
        returns=any(
            isinstance(n, ast.Return | ast.Yield | ast.YieldFrom) and n.value is not None
            for n in new
        ),
        has_same_function=any(isinstance(n, DEFINITIONS) and n.name == node.name for n in new),
        num_lines=node.end_lineno - len(before) + 1,
    )


def _does_something(node: ast.stmt) -> bool:
    """A name or a literal alone is rather a word of prose."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Name | ast.Constant | ast.Attribute | ast.Tuple)
    return not isinstance(node, ast.Pass)
