"""Shows the progress of a job over all its workers; stops the job when too many rows fail.

Every worker adds its counts to counters of the session (pipeline/workers/session.py). A separate
thread of rank 0 reads them and prints the progress line, since rank 0's main thread may be in an
engine iteration for a long time.
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

from engine.errors import UserError
from engine.stats import EngineStats
from pipeline.run_folder.output_rows import Outcome
from pipeline.stats.formatting import one_line
from pipeline.stats.meter import ratio
from pipeline.workers.session import Session

log = logging.getLogger("pipeline")

RECENT_S = 30.0
"""The current rates are averages over this time."""
TERMINAL_S = 1.0
"""How often the line is renewed on a terminal."""
PUBLISH_S = 0.5
"""A worker adds its counts to the session's counters at most this often."""
ENOUGH_ROWS = 100
"""A running job is not stopped for its failed rows before this many rows are done."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The job's counters, over all workers, as rank 0 read them at one moment."""

    at: float
    """time.monotonic()."""
    rows: int = 0
    failed: int = 0
    tokens: int = 0
    forwards: int = 0
    """Forwards of single sequences."""
    iterations: int = 0


COUNTERS = tuple(field.name for field in fields(Counters) if field.name != "at")


class Tally:
    """One worker's counts, which it adds to the job's counters; checks max_failed_fraction."""

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
        """Without `engine_stats`, only rows, failed rows and tokens are counted.

        Before this start, `num_before` rows were done, of which `failed_before` failed. They count
        towards the limit, so that a resumed run stops where an uninterrupted one would.
        """
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
        """Count one output row; publish the counts if PUBLISH_S have passed."""
        self._counts["rows"] += 1
        self._counts["failed"] += outcome.failed
        self._counts["tokens"] += outcome.result.num_generated_tokens
        self._an_error = outcome.result.error or self._an_error
        if time.monotonic() - self._published_at > PUBLISH_S:
            self.publish()

    def publish(self) -> None:
        """Add what was counted since the last call to the job's counters.

        Raises:
            UserError: more than max_failed_fraction of the job's rows failed.
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
        # When all rows are done, the summary is written first, and then check_failures decides.
        may_stop = rows >= ENOUGH_ROWS and total["rows"] < self._num_to_do
        if may_stop and failed > self._max_failed_fraction * rows:
            limit, error = self._max_failed_fraction, self._an_error
            raise UserError(too_many_failed(failed, rows, limit, error))


def too_many_failed(num_failed: int, num_rows: int, limit: float, an_error: str) -> str:
    """The message that a job stops with when too many rows failed."""
    example = f", one of them with: {one_line(an_error, 1000)}" if an_error else ""
    return (
        f"max_failed_fraction={limit}: {num_failed} of {num_rows} rows failed{example}\n"
        "The column `error` in data/ gives the reason for each row. Correct the input, or raise "
        "max_failed_fraction and run the same command again."
    )


class ProgressLine:
    """Composes the text of the progress line.

    Rows that were done before this start count as done, but not in the rates.
    """

    def __init__(
        self,
        name: str,
        num_rows: int,
        done_before: int,
        failed_before: int,
        max_sequences: int | None = None,
        of: str = "",
    ) -> None:
        """`of` says of what the rows are, if not of the whole run."""
        self._of = f" of {of}" if of else ""
        self._name = one_line(name, 20)
        self._num_rows = num_rows
        self._done_before = done_before
        self._failed_before = failed_before
        self._max_sequences = max_sequences
        self._start = Counters(0.0)
        self._recent: deque[Counters] = deque()
        """What was read in the last RECENT_S."""

    def start(self, at: float) -> None:
        """Rates are measured from `at` (time.monotonic()) on."""
        self._start = Counters(at)
        self._recent = deque([self._start])

    def text(self, now: Counters, width: int | None = None) -> str:
        """The line for the counters `now`, which are of this start; at most `width` characters."""
        self._recent.append(now)
        while len(self._recent) > 2 and self._recent[1].at <= now.at - RECENT_S:
            self._recent.popleft()
        return fit([*self._pieces(now)], width)

    def _pieces(self, now: Counters) -> Iterator[str]:
        """The pieces of the line, the most important first."""
        # If a node is lost, the rows that it had published of its open parts are done again and
        # counted again, so the counter may exceed the number of rows.
        done = min(self._num_rows, self._done_before + now.rows)
        failed = self._failed_before + now.failed
        recent, overall = _rates(self._recent[0], now), _rates(self._start, now)
        row_rate = recent[0] or overall[0]
        left = _duration((self._num_rows - done) / row_rate) if row_rate else "?"
        yield (
            f"{self._name}: {done}/{self._num_rows} rows{self._of} ({done / self._num_rows:.0%}), "
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


def fit(pieces: list[str], width: int | None) -> str:
    """The pieces joined, as many whole ones as fit into `width` characters. If not even the first
    fits, it is cut."""
    text = pieces[0]
    for piece in pieces[1:]:
        longer = f"{text} | {piece}"
        if width is not None and len(longer) > width:
            break
        text = longer
    return text[:width]


@contextmanager
def show_progress(line: ProgressLine, session: Session, every_s: float) -> Iterator[None]:
    """While the context is open, rank 0 prints the progress line to stderr: on a terminal one line
    that is renewed, otherwise a whole line every `every_s`. The log gets one every `every_s`."""
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


def _show(line: ProgressLine, session: Session, every_s: float, ended: threading.Event) -> None:
    is_terminal = sys.stderr.isatty()
    logged_at = time.monotonic()
    while not ended.wait(TERMINAL_S if is_terminal else every_s):
        now = read_counters(session)
        if time.monotonic() - logged_at >= every_s:
            log.info(line.text(now))
            logged_at = time.monotonic()
        _print(line, now, is_terminal, end="" if is_terminal else "\n")
    _print(line, read_counters(session), is_terminal, end="\n")


def _print(line: ProgressLine, now: Counters, is_terminal: bool, end: str) -> None:
    text = f"\r{line.text(now, _width())}\x1b[K" if is_terminal else line.text(now)
    print(text, end=end, file=sys.stderr, flush=True)


def _width() -> int:
    """Columns of the terminal at stderr, minus one: a full line may wrap to the next."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return max(1, (columns or 80) - 1)  # a terminal of unknown size reports 0


def read_counters(session: Session) -> Counters:
    at = time.monotonic()
    return Counters(at, **{name: session.add(name, 0) for name in COUNTERS})


def _rates(start: Counters, end: Counters) -> tuple[float, float]:
    """Rows and tokens per second between two readings."""
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
