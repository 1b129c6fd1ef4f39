"""Which statements of a piece of code does a function need?"""

import ast
import enum
import symtable
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.tasks.syntax import Run, own_scope, without_warnings

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
INTERPRETER_SETTINGS = ("setrecursionlimit", "set_int_max_str_digits")
NO_FUNCTIONS = (
    *(ast.Constant, ast.JoinedStr, ast.List, ast.Dict, ast.Set),
    *(ast.ListComp, ast.DictComp, ast.SetComp, ast.BinOp, ast.UnaryOp, ast.Compare),
)
"""Expressions whose value is certainly not a function."""


class Defines(enum.IntEnum):
    """How a statement defines a name, from not at all to best."""

    NOT = 0
    AS_STUB = 1
    """A function or class without content: only a docstring, `pass`, `...` and the like."""
    BY_ASSIGNMENT = 2
    FULLY = 3


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement at the top level of a module."""

    node: ast.stmt
    source: str
    binds: frozenset[str]
    """Names that it gives a value."""
    needs: frozenset[str]
    """Names of the module or of builtins that it or a function in it reads."""
    changes: frozenset[str]
    """Names whose value it changes in place, by an item, an attribute or a method."""

    def defines(self, name: str) -> Defines:
        if name not in self.binds:
            return Defines.NOT
        nodes = (self.node, *own_scope(self.node))
        definitions = [n for n in nodes if isinstance(n, DEFINITIONS) and n.name == name]
        if definitions:
            return Defines.AS_STUB if all(map(is_stub, definitions)) else Defines.FULLY
        value = self.node.value if isinstance(self.node, ast.Assign | ast.AnnAssign) else None
        if value is None or isinstance(value, NO_FUNCTIONS) or calls(value, name):
            return Defines.NOT
        return Defines.BY_ASSIGNMENT


def statements_of(run: Run) -> list[Statement]:
    statements = []
    for node in run.tree.body:
        source = _source_of(run.lines, node)
        binds, needs = names_of(source)
        statements.append(Statement(node, source, binds, needs, frozenset(_changes(node))))
    return statements


def names_of(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a module binds, and those of its own or of builtins that it reads.

    Both are empty if the code has an error that only the compiler finds, such as a late `from
    __future__` or a `nonlocal` without such a variable: a program with it fails by itself.
    """
    try:
        with without_warnings():
            module = symtable.symtable(source, "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset(), frozenset()
    own = module.get_symbols()
    binds = {symbol.get_name() for symbol in own if symbol.is_assigned() or symbol.is_imported()}
    needs = {symbol.get_name() for symbol in own if symbol.is_referenced()}
    inner = list(module.get_children())
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        needs |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    return frozenset(binds), frozenset(needs)


def needed_for(
    statements: Sequence[Statement], entry_point: str, roots: Iterable[str]
) -> list[Statement]:
    """Those of a module's statements that are kept for the entry point and for `roots`, the names
    that its test reads: imports, definitions, and all that gives a variable of theirs its value.

    Left out are calls, asserts, the `__main__` guard, and variables that only these use.
    """
    best = max((s.defines(entry_point) for s in statements), default=Defines.NOT)
    usable = [s for s in statements if not _is_left_out(s, entry_point, best)]
    variables = {
        name for s in usable if not isinstance(s.node, (*DEFINITIONS, *IMPORTS)) for name in s.binds
    }
    needed = {entry_point, *roots}
    kept: set[int] = set()
    while True:
        found = {
            i
            for i, s in enumerate(usable)
            if i not in kept
            and (_is_always_kept(s.node) or needed & (s.binds | (s.changes & variables)))
        }
        if not found:
            return [usable[i] for i in sorted(kept)]
        kept |= found
        needed = needed.union(*(usable[i].needs for i in found))


def is_stub(node: ast.AST) -> bool:
    """A definition without content: it cannot be an answer."""
    if not isinstance(node, DEFINITIONS):
        return False
    return all(_is_empty(statement) or is_stub(statement) for statement in node.body)


def calls(expression: ast.expr, name: str) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        for node in ast.walk(expression)
    )


def num_code_lines(statements: Iterable[Statement]) -> int:
    """Lines with code, so without docstrings, comments and blank lines."""
    total = 0
    for statement in statements:
        lines = set()
        waiting: list[ast.AST] = [statement.node]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.stmt | ast.expr) and not _is_empty(node):
                lines.add(node.lineno)
            waiting += [] if _is_empty(node) else ast.iter_child_nodes(node)
        total += len(lines)
    return total


def _is_always_kept(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return name in INTERPRETER_SETTINGS
    return isinstance(node, (*DEFINITIONS, *IMPORTS))


def _is_left_out(statement: Statement, entry_point: str, best: Defines) -> bool:
    """Whether the statement is no part of the answer, whatever reads its names."""
    node, defines = statement.node, statement.defines(entry_point)
    if isinstance(node, ast.Assert) or _is_main_guard(node):
        return True
    if defines is Defines.AS_STUB:
        return best > Defines.AS_STUB
    # A use of the function under its own name: `total = total([1, 2])`.
    is_assignment = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
    return is_assignment and entry_point in statement.binds and defines < best


def _is_main_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    inside = list(ast.walk(node.test))
    names = {n.id for n in inside if isinstance(n, ast.Name)}
    return "__name__" in names and "__main__" in [getattr(n, "value", None) for n in inside]


def _is_empty(node: ast.AST) -> bool:
    """A statement without content: `pass`, `...`, a docstring, `return None`, or that something
    is not implemented."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Return):
        return node.value is None or (
            isinstance(node.value, ast.Constant) and node.value.value in (None, ...)
        )
    if isinstance(node, ast.Raise):
        return node.exc is not None and "NotImplementedError" in ast.unparse(node.exc)
    return isinstance(node, ast.Pass)


def _changes(statement: ast.stmt) -> Iterator[str]:
    for node in (statement, *own_scope(statement)):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield from _base_of(node)
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            yield from _base_of(node.value.func)


def _base_of(node: ast.expr) -> Iterator[str]:
    """The variable that an item or attribute belongs to: `a` of `a.b[0].c`."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _source_of(lines: Sequence[str], node: ast.stmt) -> str:
    """The statement without others on the same line. Columns count bytes of UTF-8."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    own = list(lines[first - 1 : node.end_lineno])
    own[-1] = own[-1].encode()[: node.end_col_offset].decode()
    if first == node.lineno:
        own[0] = own[0].encode()[node.col_offset :].decode()
    return "\n".join(own)
