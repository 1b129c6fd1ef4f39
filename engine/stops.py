"""Stop strings: where a generation's text is cut, and when its sequence is done.

The engine knows no text. Whoever drives it gives it `text_of`, from token ids to the text that is
shown for them. Of that it asks that the text of the first tokens is the beginning of the text of
all, but for characters at its end of which only some bytes are there (U+FFFD).

The text is cut at the first occurrence of any stop string: the one that begins first. A sequence is
done once its text up to the end of that occurrence is final, and none can begin before it any more.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

TextOf = Callable[[list[int]], str]

PARTIAL = "\ufffd"
"""Stands in a text for bytes that are no character, or not yet."""
CONTEXT = 4
"""The text of tokens in the middle of a generation may begin otherwise than theirs in the whole
text, within so many tokens: with the last bytes of a character, or without a space."""


class Cut(NamedTuple):
    """The part of a generation that stands before a stop string."""

    num_tokens: int
    """The fewest tokens whose text holds the text before the stop string."""
    text_length: int
    """Characters before the stop string."""


class StopSearch:
    """Looks for the stop strings of one sequence in its text, as it grows."""

    def __init__(self, stops: Sequence[str], text_of: TextOf) -> None:
        self._stops = stops
        self._text_of = text_of
        self._longest = max(len(stop) for stop in stops)
        self._start = 0
        """The text before this token holds no stop string, nor the beginning of one."""
        self._num_read = 0
        self.cut: Cut | None = None

    def read(self, token_ids: list[int]) -> Cut | None:
        """The cut, once it is known from the tokens that are final; more of them may follow."""
        if self.cut is not None or len(token_ids) <= self._num_read:
            return self.cut
        self._num_read = len(token_ids)
        window = self._text_of(token_ids[self._start :]).rstrip(PARTIAL)
        if any(stop in window for stop in self._stops):
            text = self._text_of(token_ids).rstrip(PARTIAL)
            length = first_stop(text, self._stops)
            if length is not None and not self._may_begin_before(length, text):
                self.cut = self._cut(token_ids, text[:length])
        self._move(token_ids)
        return self.cut

    def at_end(self, token_ids: list[int]) -> Cut | None:
        """The cut, if no more tokens follow."""
        if self.cut is None:
            text = self._text_of(token_ids)
            length = first_stop(text, self._stops)
            if length is not None:
                self.cut = self._cut(token_ids, text[:length])
        return self.cut

    def _may_begin_before(self, length: int, text: str) -> bool:
        """Whether the text ends with the beginning of a stop string that would come first."""
        starts = range(max(0, len(text) - self._longest + 1), length)
        return any(stop.startswith(text[start:]) for start in starts for stop in self._stops)

    def _cut(self, token_ids: list[int], text: str) -> Cut:
        few, enough = 0, len(token_ids)
        while few < enough:
            middle = (few + enough) // 2
            if self._text_of(token_ids[:middle]).startswith(text):
                enough = middle
            else:
                few = middle + 1
        return Cut(enough, len(text))

    def _move(self, token_ids: list[int]) -> None:
        """Read on from a later token, if there are many to read: the last ones, whose text is as
        long as the longest stop string."""
        num_open = len(token_ids) - self._start
        if num_open <= 4 * (self._longest + 4 * CONTEXT):
            return
        count = self._longest + 2 * CONTEXT
        while count < num_open and self._is_short(token_ids[CONTEXT - count :]):
            count *= 2
        self._start = max(self._start, len(token_ids) - count)

    def _is_short(self, token_ids: list[int]) -> bool:
        return len(self._text_of(token_ids).rstrip(PARTIAL)) < self._longest


class Stops:
    """The searches of the live sequences that have stop strings, by the sequence's first slot."""

    def __init__(self, text_of: TextOf | None) -> None:
        self._text_of = text_of
        self._of: dict[int, StopSearch] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, first_slot: int) -> bool:
        return first_slot in self._of

    def admit(self, first_slot: int, stops: Sequence[str]) -> None:
        if stops:
            assert self._text_of is not None, "a request with stop strings is refused without text"
            self._of[first_slot] = StopSearch(stops, self._text_of)

    def drop(self, first_slots: Iterable[int]) -> None:
        for first_slot in first_slots:
            self._of.pop(first_slot, None)

    def read(self, first_slot: int, token_S: np.ndarray, start: int, end: int) -> Cut | None:
        """The cut of a sequence whose tokens are final at canvas positions start .. end - 1."""
        tokens = token_S[first_slot + start : first_slot + max(start, end)]
        return self._of[first_slot].read(tokens.tolist())

    def at_end(self, first_slot: int, token_S: np.ndarray, start: int, end: int) -> Cut | None:
        """The cut of a sequence that is done; None: it has no stop strings, or met none."""
        if first_slot not in self._of:
            return None
        search = self._of[first_slot]
        return search.cut or search.at_end(token_S[first_slot + start : first_slot + end].tolist())


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first occurrence of any stop string begins; None: there is none."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return min(found, default=None)
