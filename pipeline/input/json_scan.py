"""Find where JSON values begin and end, without parsing them.

This cuts an array of rows into rows while the file is streamed, and an object into the texts of its
values when the whole of it cannot be parsed. Nesting may be of any depth.
"""

import json
import re
from collections.abc import Callable, Iterator

CHUNK = 1 << 16
"""Characters that are read at a time."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(")?|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[^\s,\]}]+")


def end_of_value(text: str, start: int) -> int | None:
    """Where the value that begins at `start` ends; None if the text ends before it does."""
    if text[start] not in '"{[':
        word = _WORD.match(text, start)
        return None if word is None or word.end() == len(text) else word.end()
    depth = 0
    for token in _TOKEN.finditer(text, start):
        sign = token[0][0]
        if sign == '"' and token[1] is None:
            return None
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(sign, 0)
        if depth == 0:
            return token.end()
    return None


def values_of(text: str) -> dict[str, str]:
    """The text of each value of an object, by its key.

    Raises:
        ValueError: the text is not an object.
    """
    values: dict[str, str] = {}
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "}":
        end = end_of_value(text, at) if text[at : at + 1] == '"' else None
        colon = None if end is None else _after_space(text, end)
        if end is None or colon is None or text[colon : colon + 1] != ":":
            raise ValueError(f"no key and colon at character {at}")
        start = _after_space(text, colon + 1)
        stop = end_of_value(text, start) if start < len(text) else None
        if stop is None:
            raise ValueError(f"no whole value at character {start}")
        values[json.loads(text[at:end])] = text[start:stop]
        at = _after_space(text, stop)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError(f"no comma at character {at}")
    return values


def elements(read: Callable[[int], str]) -> Iterator[tuple[int, str]]:
    """The elements of an array: the line in which each begins, counted from 1, and its text.

    `read` returns up to a number of characters of the stream, and "" at its end. Apart from one
    element, only CHUNK characters are in memory.

    Raises:
        ValueError: the array has no end, or something other than a comma between two elements.
    """
    buffer = _Buffer(read)
    assert buffer.peek() == "[", "the caller looks at the first character"
    buffer.drop(1)
    while (sign := buffer.peek()) != "]":
        if not sign:
            raise ValueError(f"line {buffer.line}: the array does not end")
        line, text = buffer.line, buffer.take_value()
        if text is None:
            raise ValueError(f"line {line}: the element that begins here does not end")
        yield line, text
        if buffer.peek() == ",":
            buffer.drop(1)
        elif buffer.peek() != "]":
            raise ValueError(f"line {buffer.line}: no comma after an element of the array")
    buffer.drop(1)
    if buffer.peek():
        raise ValueError(f"line {buffer.line}: the array has ended, and more follows")


class _Buffer:
    """What was read of a stream and not yet taken."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read = read
        self._text = ""
        self.line = 1

    def peek(self) -> str:
        """The next character that is no white space; "" at the end of the stream."""
        while True:
            self.drop(_after_space(self._text, 0))
            if self._text or not self._more(CHUNK):
                return self._text[:1]

    def drop(self, num: int) -> None:
        self.line += self._text.count("\n", 0, num)
        self._text = self._text[num:]

    def take_value(self) -> str | None:
        """The value that comes next; None if the stream ends before it does."""
        while (end := end_of_value(self._text, 0)) is None:
            if not self._more(
                max(CHUNK, len(self._text))
            ):  # doubled, so that the work stays linear
                return None
        value = self._text[:end]
        self.drop(end)
        return value

    def _more(self, num: int) -> bool:
        more = self._read(num)
        self._text += more
        return bool(more)


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None, "the pattern matches nothing at all too"
    return space.end()
