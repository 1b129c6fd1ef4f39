"""Which lines of a text are Python? Python's own parser decides."""

import ast
import contextlib
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_filters = threading.Lock()
"""Held while warnings are off, because their filters are shared by all threads."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive lines that are Python."""

    lines: list[str]
    tree: ast.Module


def normal(text: str) -> str:
    """The text with line ends as Python reads them, and without what no source may contain: a
    byte order mark, null bytes, lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.removeprefix("\ufeff").encode("utf-8", "replace").decode()


def readable(text: str) -> str:
    """The text as it is if it is Python, otherwise without characters that nobody sees: other
    spaces become plain ones, zero-width characters are removed. (In a string they may be meant.)"""
    if text.isascii() or isinstance(parse(text), ast.Module):
        return text
    kinds = {ord(char): unicodedata.category(char) for char in set(text)}
    spaces = dict.fromkeys((code for code, kind in kinds.items() if kind == "Zs"), " ")
    return text.translate(spaces | {code: None for code, kind in kinds.items() if kind == "Cf"})


def parse(source: str) -> ast.Module | int:
    """The syntax tree; of a text that is no Python the line of the first error, 0 if unknown."""
    try:
        with without_warnings():
            return ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):  # nested too deeply
        return 0


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Such as the compiler's, about invalid escape sequences."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def longest_start(lines: Sequence[str]) -> Run:
    """The most lines from the first one on that are a module: Python without a `return` or `yield`
    outside of functions. No line at all if the first one is none."""
    end = len(lines)
    while end:
        found = parse("\n".join(lines[:end]))
        if isinstance(found, ast.Module):
            outside = _line_outside_functions(found)
            if outside is None:
                return Run(list(lines[:end]), found)
            found = outside
        # The parser went through all lines before the error, so no text that includes it is Python.
        end = min(end - 1, found - 1) if found else end // 2
    return Run([], ast.Module([], []))


def whole(text: str) -> Run | None:
    """All lines of the text; None if it is no module."""
    tree = parse(text)
    if isinstance(tree, ast.Module) and _line_outside_functions(tree) is None:
        return Run(text.split("\n"), tree)
    return None


def runs(lines: Sequence[str]) -> Iterator[Run]:
    """The lines that are Python, in runs that are as long as possible. Each is dedented."""
    start = 0
    while start < len(lines):
        rest = lines[start:]
        if not rest[0].strip():
            start += 1
            continue
        run = longest_start(dedent(rest) if rest[0][0].isspace() else rest)
        if run.lines:
            yield run
        start += max(1, len(run.lines))


def dedent(lines: Sequence[str]) -> list[str]:
    """The lines without the indent of the first one that is not blank. Lines with less lose theirs:
    textwrap.dedent would leave all as they are for one such line."""
    first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip())]
    return [line[_num_common(indent, line) :] for line in lines] if indent else list(lines)


def own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one, except those inside of a function or class below it."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        yield child
        if not isinstance(child, SCOPES):
            waiting += ast.iter_child_nodes(child)


def _num_common(indent: str, line: str) -> int:
    """The number of characters that both start with."""
    pairs = zip(indent, line, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(indent), len(line)))


def _line_outside_functions(tree: ast.Module) -> int | None:
    """The line of the first statement that may only stand in a function."""
    for statement in tree.body:
        if isinstance(statement, SCOPES):
            continue
        for node in (statement, *own_scope(statement)):
            if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
                return statement.lineno
    return None
