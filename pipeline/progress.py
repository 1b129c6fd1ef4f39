"""How far is the job, over all workers, and when will it be done? The line that a person reads.

Every worker adds what it did to counters in the session; rank 0 reads them in a thread of its own,
since its engine may be at work for long.
"""

import logging
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.session import Session
from pipeline.write import Outcome

log = logging.getLogger("pipeline")

RECENT_S = 30.0
TERMINAL_S = 1.0
PUBLISH_S = 0.5
ENOUGH_ROWS = 100
"""No job is stopped for its failures before it has seen this many rows."""


class Tally:
    """One worker's share of the job's counters, and the limit on failures."""

    def __init__(self, session: Session, num_to_do: int, max_failed_fraction: float) -> None:
        self._session = session
        self._num_to_do = num_to_do
        self._max_failed_fraction = max_failed_fraction
        self._unpublished = {"rows": 0, "failed": 0, "tokens": 0}
        self._published_at = 0.0
        self._an_error = ""

    def count(self, outcome: Outcome) -> None:
        self._unpublished["rows"] += 1
        self._unpublished["failed"] += outcome.failed
        self._unpublished["tokens"] += outcome.result.num_generated_tokens
        self._an_error = outcome.result.error or self._an_error
        if time.monotonic() - self._published_at > PUBLISH_S:
            self.publish()

    def publish(self) -> None:
        """Add to the job's counters.

        Raises:
            ValueError: too many of the job's rows failed.
        """
        counts, self._unpublished = self._unpublished, dict.fromkeys(self._unpublished, 0)
        total = {name: self._session.add(name, count) for name, count in counts.items()}
        self._published_at = time.monotonic()
        is_enough = ENOUGH_ROWS <= total["rows"] < self._num_to_do
        if is_enough and total["failed"] > self._max_failed_fraction * total["rows"]:
            limit, error = self._max_failed_fraction, self._an_error
            raise ValueError(too_many(total["failed"], total["rows"], limit, error))


def too_many(num_failed: int, num_rows: int, limit: float, an_error: str) -> str:
    return (
        f"max_failed_fraction={limit}: {num_failed} of {num_rows} rows failed, one of them with: "
        f"{an_error}\nThe column `error` in data/ says why for each. Mend the input, or raise "
        "max_failed_fraction and run the same command again."
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """The job's counters at a moment."""

    at: float
    rows: int = 0
    failed: int = 0
    tokens: int = 0


class Line:
    """The text of the line. Rows that were done before the start count as done, and in no rate."""

    def __init__(self, name: str, num_rows: int, done_before: int, failed_before: int) -> None:
        self._name = name
        self._num_rows = num_rows
        self._done_before = done_before
        self._failed_before = failed_before
        self._start = Seen(0.0)
        self._recent: deque[Seen] = deque()

    def start(self, at: float) -> None:
        """Rates count from here."""
        self._start = Seen(at)
        self._recent = deque([self._start])

    def text(self, now: Seen) -> str:
        """The line now; `now` counts since the start."""
        self._recent.append(now)
        while len(self._recent) > 2 and self._recent[1].at <= now.at - RECENT_S:
            self._recent.popleft()
        done = self._done_before + now.rows
        failed = self._failed_before + now.failed
        recent, overall = _rates(self._recent[0], now), _rates(self._start, now)
        row_rate = recent[0] or overall[0]
        left = _duration((self._num_rows - done) / row_rate) if row_rate else "?"
        return (
            f"{self._name}: {done}/{self._num_rows} rows ({done / self._num_rows:.0%}), "
            f"{failed} failed, {left} left | {recent[1]:,.0f} tokens/s now, "
            f"{overall[1]:,.0f} overall"
        )


@contextmanager
def shown(line: Line, session: Session, every_s: float) -> Iterator[None]:
    """Rank 0 shows the line meanwhile: renewed on a terminal, whole lines in a log."""
    if not session.worker.is_first:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(line, session, every_s, ended), daemon=True)
    line.start(time.monotonic())
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(line: Line, session: Session, every_s: float, ended: threading.Event) -> None:
    is_terminal = sys.stderr.isatty()
    logged_at = time.monotonic()
    while not ended.wait(TERMINAL_S if is_terminal else every_s):
        text = line.text(seen(session))
        if time.monotonic() - logged_at >= every_s:
            log.info(text)
            logged_at = time.monotonic()
        _print(text, is_terminal, end="" if is_terminal else "\n")
    _print(line.text(seen(session)), is_terminal, end="\n")


def _print(text: str, is_terminal: bool, end: str) -> None:
    if is_terminal:
        width = shutil.get_terminal_size().columns - 1
        text = f"\r{text[:width]}\x1b[K"
    print(text, end=end, file=sys.stderr, flush=True)


def seen(session: Session) -> Seen:
    counts = {name: session.add(name, 0) for name in ("rows", "failed", "tokens")}
    return Seen(time.monotonic(), **counts)


def _rates(start: Seen, end: Seen) -> tuple[float, float]:
    """Rows and tokens per second."""
    passed = end.at - start.at
    if passed <= 0:
        return 0.0, 0.0
    return (end.rows - start.rows) / passed, (end.tokens - start.tokens) / passed


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
