"""How far is the job, over all workers, and when will it be done? The line that a person reads.

Every worker adds what it did to counters in the session; rank 0 reads them in a thread of its own,
since its engine may be at work for long.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from engine.stats import EngineStats
from pipeline.run_folder.output_rows import Outcome
from pipeline.stats.formatting import one_line
from pipeline.stats.meter import ratio
from pipeline.workers.session import Session

log = logging.getLogger("pipeline")

RECENT_S = 30.0
TERMINAL_S = 1.0
PUBLISH_S = 0.5
ENOUGH_ROWS = 100
"""No job is stopped for its failures before it has seen this many rows."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The job's counters at a moment."""

    at: float
    rows: int = 0
    failed: int = 0
    tokens: int = 0
    forwards: int = 0
    """Of single sequences."""
    iterations: int = 0


COUNTERS = tuple(field.name for field in fields(Seen) if field.name != "at")


class Tally:
    """One worker's share of the job's counters, and the limit on failures."""

    def __init__(
        self,
        session: Session,
        num_to_do: int,
        max_failed_fraction: float,
        engine_stats: EngineStats | None = None,
        *,
        num_before: int = 0,
        failed_before: int = 0,
    ) -> None:
        """Without `engine_stats`, rows and tokens alone are counted. Rows that were done before
        this start count towards the limit: a broken run fails where an unbroken one would."""
        self._session = session
        self._num_to_do = num_to_do
        self._num_before = num_before
        self._failed_before = failed_before
        self._max_failed_fraction = max_failed_fraction
        self._engine_stats = engine_stats or EngineStats()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._published = dict(self._counts)
        self._published_at = 0.0
        self._an_error = ""

    def count(self, outcome: Outcome) -> None:
        self._counts["rows"] += 1
        self._counts["failed"] += outcome.failed
        self._counts["tokens"] += outcome.result.num_generated_tokens
        self._an_error = outcome.result.error or self._an_error
        if time.monotonic() - self._published_at > PUBLISH_S:
            self.publish()

    def publish(self) -> None:
        """Add to the job's counters.

        Raises:
            ValueError: too many of the job's rows failed.
        """
        self._counts["forwards"] = sum(self._engine_stats.num_forwards.values())
        self._counts["iterations"] = self._engine_stats.num_iterations
        before, self._published = self._published, dict(self._counts)
        total = {
            name: self._session.add(name, count - before[name])
            for name, count in self._counts.items()
        }
        self._published_at = time.monotonic()
        rows, failed = self._num_before + total["rows"], self._failed_before + total["failed"]
        is_enough = rows >= ENOUGH_ROWS and total["rows"] < self._num_to_do
        if is_enough and failed > self._max_failed_fraction * rows:
            limit, error = self._max_failed_fraction, self._an_error
            raise ValueError(too_many(failed, rows, limit, error))


def too_many(num_failed: int, num_rows: int, limit: float, an_error: str) -> str:
    example = f", one of them with: {one_line(an_error, 1000)}" if an_error else ""
    return (
        f"max_failed_fraction={limit}: {num_failed} of {num_rows} rows failed{example}\n"
        "The column `error` in data/ says why for each. Mend the "
        "input, or raise max_failed_fraction and run the same command again."
    )


class Line:
    """The text of the line. Rows that were done before the start count as done, and in no rate."""

    def __init__(
        self,
        name: str,
        num_rows: int,
        done_before: int,
        failed_before: int,
        max_sequences: int | None = None,
    ) -> None:
        self._name = one_line(name, 20)
        self._num_rows = num_rows
        self._done_before = done_before
        self._failed_before = failed_before
        self._max_sequences = max_sequences
        self._start = Seen(0.0)
        self._recent: deque[Seen] = deque()

    def start(self, at: float) -> None:
        """Rates count from here."""
        self._start = Seen(at)
        self._recent = deque([self._start])

    def text(self, now: Seen, width: int | None = None) -> str:
        """The line now, as much of it as `width` letters hold; `now` counts since the start."""
        self._recent.append(now)
        while len(self._recent) > 2 and self._recent[1].at <= now.at - RECENT_S:
            self._recent.popleft()
        return fitting([*self._pieces(now)], width)

    def _pieces(self, now: Seen) -> Iterator[str]:
        """What is most important comes first."""
        # What a lost node had published of its open parts counts twice once they are redone.
        done = min(self._num_rows, self._done_before + now.rows)
        failed = self._failed_before + now.failed
        recent, overall = _rates(self._recent[0], now), _rates(self._start, now)
        row_rate = recent[0] or overall[0]
        left = _duration((self._num_rows - done) / row_rate) if row_rate else "?"
        yield (
            f"{self._name}: {done}/{self._num_rows} rows ({done / self._num_rows:.0%}), "
            f"{failed} failed, {left} left"
        )
        yield f"{recent[1]:,.0f} tokens/s ({overall[1]:,.0f} overall)"
        yield f"{_rate(recent[0])} rows/s ({_rate(overall[0])} overall)"
        if (per_forward := ratio(now.tokens, now.forwards)) is not None:
            yield f"{per_forward:.2f} tokens/forward"
        since = self._recent[0]
        num_iterations = now.iterations - since.iterations
        if (num_held := ratio(now.forwards - since.forwards, num_iterations)) is not None:
            of = "" if self._max_sequences is None else f" of {self._max_sequences}"
            yield f"{num_held:.1f}{of} sequences/batch"


def fitting(pieces: list[str], width: int | None) -> str:
    """As many whole pieces as fit, and the first in any case, cut if it must be."""
    text = pieces[0]
    for piece in pieces[1:]:
        longer = f"{text} | {piece}"
        if width is not None and len(longer) > width:
            break
        text = longer
    return text[:width]


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
        now = seen(session)
        if time.monotonic() - logged_at >= every_s:
            log.info(line.text(now))
            logged_at = time.monotonic()
        _print(line, now, is_terminal, end="" if is_terminal else "\n")
    _print(line, seen(session), is_terminal, end="\n")


def _print(line: Line, now: Seen, is_terminal: bool, end: str) -> None:
    text = f"\r{line.text(now, _width())}\x1b[K" if is_terminal else line.text(now)
    print(text, end=end, file=sys.stderr, flush=True)


def _width() -> int:
    """Of the terminal that stderr is, one less: a cursor behind the last column may wrap."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return max(1, (columns or 80) - 1)  # a terminal that does not know its size says 0


def seen(session: Session) -> Seen:
    at = time.monotonic()
    return Seen(at, **{name: session.add(name, 0) for name in COUNTERS})


def _rates(start: Seen, end: Seen) -> tuple[float, float]:
    """Rows and tokens per second."""
    passed = end.at - start.at
    if passed <= 0:
        return 0.0, 0.0
    return (end.rows - start.rows) / passed, (end.tokens - start.tokens) / passed


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.2g}" if per_s < 1 else f"{per_s:.1f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
