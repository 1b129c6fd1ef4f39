"""Which code of an answer is run? docs/scoring.md has the rule, and how others do it.

An answer that continues the prompt (it is indented as the body is, and returns something) is a
body. Otherwise the answer is searched for a definition of the entry point: `pieces.py` finds what
may be code, `syntax.py` what of it is Python, and `statements.py` what of that the entry point
needs. An answer without a definition is a body after all (`body.py`), with or without its indent.
"""

import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.tasks.body import Body, best_body, direct_body, open_function
from pipeline.tasks.pieces import pieces
from pipeline.tasks.statements import (
    IMPORTS,
    Defines,
    Statement,
    names_of,
    needed_for,
    num_code_lines,
    statements_of,
)
from pipeline.tasks.syntax import Run, normal, runs, whole

THINKING = re.compile(r".*(?:^</think>|</think>[ \t]*$)", re.DOTALL | re.MULTILINE)
"""Its mark begins or ends a line; elsewhere it may be part of code."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Code that defines the entry point, without what is not run."""

    statements: list[Statement]
    defines: Defines
    is_whole: bool
    """Nothing had to be cut off to make it Python."""

    @property
    def rank(self) -> tuple[Defines, bool, int]:
        return self.defines, self.is_whole, num_code_lines(self.statements)

    @property
    def is_sure(self) -> bool:
        """Whether it needs no look at other ways to read the answer. Part of a body can look like
        an assignment, but it is no whole piece: it has a `return`."""
        return self.defines is Defines.FULLY or (
            self.defines is Defines.BY_ASSIGNMENT and self.is_whole
        )


def code_of(prompt: str, entry_point: str, test: str, answer: str) -> str:
    """The code that defines `entry_point` according to the answer, behind what it needs of the
    prompt. If nothing in the answer can do so, the prompt and the answer as they are: the program
    then fails and names the error."""
    prompt, answer = normal(prompt), without_thinking(normal(answer))
    found_name = re.match(r"\w+", entry_point)  # `Solution` of `Solution().solve`
    name = found_name[0] if found_name else entry_point
    function = open_function(prompt, name)
    direct = direct_body(function, answer) if function else None
    if direct:
        return _with_helpers(direct, answer)
    definition = best_definition(answer, name, names_of(normal(test))[1])
    body = None
    if not (definition and definition.is_sure) and function:
        body = best_body(function, answer)
    if body and (body.returns or not definition or definition.defines is Defines.AS_STUB):
        return _with_helpers(body, answer)
    if definition:
        return _behind(function.head if function else "", definition, prompt, answer)
    return prompt + answer


def without_thinking(answer: str) -> str:
    """What is behind a model's thinking, which holds drafts; all of it if nothing is behind it."""
    behind = THINKING.sub("", answer)
    return behind if behind.strip() else answer


def best_definition(answer: str, name: str, test_needs: frozenset[str]) -> Definition | None:
    """The definition of `name` with the most lines of code, the last of several; one that is not a
    stub before an assignment, and one in a whole piece before one that had to be cut out."""
    best = None
    for find in (_whole, _cut):
        for run in find(answer, name):
            statements = needed_for(statements_of(run), name, test_needs)
            defines = max((s.defines(name) for s in statements), default=Defines.NOT)
            if defines is Defines.NOT:
                continue
            found = Definition(statements, defines, is_whole=find is _whole)
            if best is None or found.rank >= best.rank:
                best = found
        if best and best.defines is Defines.FULLY:
            break
    return best


def _whole(answer: str, name: str) -> Iterator[Run]:
    """The pieces that are modules and contain the name."""
    for piece in pieces(answer):
        if name in piece and (run := whole(piece)):
            yield run


def _cut(answer: str, name: str) -> Iterator[Run]:
    """What of the pieces is a module and contains the name."""
    for piece in pieces(answer, reach=1):
        if name in piece:
            yield from runs(piece.split("\n"))


def _with_helpers(body: Body, answer: str) -> str:
    """The body, and behind it the helpers that it needs and that the answer has elsewhere."""
    binds, needs = names_of(body.code)
    helpers = _borrowed(needs - binds, binds, answer)
    return "\n\n".join([body.code, *(f"{helper.source}\n" for helper in helpers)])


def _behind(head: str, definition: Definition, prompt: str, answer: str) -> str:
    """The definition behind the head of the prompt, and behind the helpers and imports that it
    needs and that the answer has elsewhere."""
    own = definition.statements
    binds = names_of(head)[0].union(*(s.binds for s in own))
    needs = frozenset().union(*(s.needs for s in own))
    helpers = _borrowed(needs - binds, binds, f"{prompt}\n{answer}")
    if helpers:  # These may need the definition's imports.
        own = sorted([*helpers, *own], key=lambda s: not isinstance(s.node, IMPORTS))
    return "\n".join([head, *(f"{s.source}\n" for s in own)])


def _borrowed(missing: frozenset[str], known: frozenset[str], text: str) -> list[Statement]:
    """The statements of the text that give the missing names a value (the last for each), and what
    these need in turn, in the order of the text."""
    wanted = set(missing) - set(dir(builtins))
    if not wanted:
        return []
    codes = [code.split("\n") for code in pieces(text, reach=1)]
    there = [s for code in codes for run in runs(code) for s in statements_of(run)]
    where = {name: i for i, s in enumerate(there) for name in s.binds}
    taken: set[int] = set()
    while wanted:
        i = where.get(wanted.pop())
        if i is not None and i not in taken:
            taken.add(i)
            wanted |= there[i].needs - there[i].binds - known - set(dir(builtins))
    return [there[i] for i in sorted(taken)]
