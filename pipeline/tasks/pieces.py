"""Which parts of an answer may be code? The text between any two fences, and the whole text."""

import re
from collections.abc import Iterator

from pipeline.tasks.syntax import dedent, readable

FENCE = re.compile(r"`{3,}|~{3,}")
"""Also in the middle of a line, and whether it opens or closes: models leave out one of a pair."""
LANGUAGE = re.compile(r"[ \t]*(?:python|py)[\d.]*\b", re.IGNORECASE)
DOCTEST = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)(.*)")
QUOTE = re.compile(r"[ \t]*>(?!>>) ?")
REACH = 8
"""The most fences that a piece spans, less one. Those inside of it stand in a string, such as an
example in a docstring; too many would be a model that repeats itself."""


def pieces(text: str, reach: int = REACH) -> Iterator[str]:
    """Each part of the text that may be code, the whole text too, in the order of their starts."""
    fences = list(FENCE.finditer(text))
    starts = [0, *(fence.end() for fence in fences)]
    ends = [*(fence.start() for fence in fences), len(text)]
    for i, start in enumerate(starts):
        last = min(i + reach, len(ends))
        for end in sorted({*ends[i:last], len(text)} if i == 0 else ends[i:last]):
            yield from _readings(text[start:end], has_opener=i > 0)


def _readings(piece: str, has_opener: bool) -> Iterator[str]:
    """The code in the text behind a fence."""
    parts = [piece]
    if has_opener:
        # What follows the fence in its line is a language (```py title="a.py") or code.
        line, newline, rest = piece.partition("\n")
        language = LANGUAGE.match(line)
        parts = [rest] if newline else []
        parts += (
            [line[language.end() if language else 0 :] + newline + rest] if line.strip() else []
        )
    for part in parts:
        lines = _unquoted(part.split("\n"))
        code = "\n".join(dedent(lines))
        yield readable(code)
        if code.lstrip().lstrip().startswith(">>>"):
            yield "\n".join(found[1] for line in lines if (found := DOCTEST.fullmatch(line)))


def _unquoted(lines: list[str]) -> list[str]:
    """The lines without the `>` of a Markdown quote, which all of them have."""
    while any(line.strip() for line in lines):
        if not all(QUOTE.match(line) for line in lines if line.strip()):
            break
        lines = [QUOTE.sub("", line, count=1) for line in lines]
    return lines
