"""A line on stderr that says how far a count is: on a terminal one line that is renewed, otherwise
a whole line every few seconds."""

import sys
import time
from typing import Self

from pipeline.stats.formatting import duration

TERMINAL_S = 1.0
LOG_S = 15.0


class CountingLine:
    """Counts up to a number that is known."""

    def __init__(self, doing: str, what: str, num: int, num_at_a_time: int) -> None:
        self._doing, self._what = doing, what
        self._num, self._num_at_a_time = num, num_at_a_time
        self._is_terminal = sys.stderr.isatty()
        self._start = self._shown_at = time.monotonic()
        self._num_done, self._has_shown = 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_shown:  # what took no time needs no line
            self._print()
            print(end="\n" if self._is_terminal else "", file=sys.stderr, flush=True)

    def show(self, num_done: int) -> None:
        """So many are done; the line is written if it is time."""
        self._num_done = num_done
        now = time.monotonic()
        if now - self._shown_at >= (TERMINAL_S if self._is_terminal else LOG_S):
            self._shown_at, self._has_shown = now, True
            self._print()

    def text(self) -> str:
        done, passed_s = self._num_done, time.monotonic() - self._start
        left_s = passed_s * (self._num - done) / done if done else 0.0
        return (
            f"{self._doing}: {done:,} of {self._num:,} {self._what} ({done / self._num:.0%}), "
            f"{done / passed_s:,.1f}/s, {self._num_at_a_time} at a time, {duration(left_s)} left"
        )

    def _print(self) -> None:
        if self._is_terminal:
            print(f"\r{self.text()}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(self.text(), file=sys.stderr, flush=True)
