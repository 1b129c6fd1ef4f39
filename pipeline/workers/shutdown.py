"""Handle SIGTERM, which a scheduler sends before it takes the machine away, and Ctrl-C (SIGINT).

A worker that is generating takes no new rows. It has shutdown_grace_s seconds to finish the rows in
its engine and to write the parts that these complete. Rows that are not finished by then are
dropped, and the next launch generates them. (torchrun and Slurm send SIGKILL after 30 s.)

    worker             the first signal while it generates    at any other time
    a single rank      finishes its rows, then ends           ends at once
    a group of ranks   ends at once: ranks that finished      ends at once
                       different rows would wait for
                       each other

What a second signal does depends on who sends it:

    SIGTERM, SIGTERM   nothing: Slurm sends it to every process, and torchrun, having received it,
                       passes it on to its workers
    SIGINT, SIGINT     a second Ctrl-C: the worker ends at once
    SIGINT, SIGTERM    the same under torchrun, which passes on the first Ctrl-C as SIGINT and the
                       second one as SIGTERM
    SIGTERM, SIGINT    Ctrl-C in a grace period: the worker ends at once

If a worker that is ending hangs in its last requests, one more Ctrl-C kills it.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAME_PRESS_S = 0.5
"""Signals that come within this time of the last one have the same cause: one Ctrl-C reaches a
process from the terminal, and again from its launcher."""


class Terminated(BaseException):
    """A signal ends this process. A BaseException, so that `except Exception` lets it pass."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.is_interrupt = signum == signal.SIGINT
        """Whether it was Ctrl-C."""
        self.exit_code = 128 + signum


class Shutdown:
    """Whether this process has been told to end, and how it does."""

    def __init__(self, grace_s: float, speaks: bool = False) -> None:
        """`speaks`: this rank says on stderr that a grace period has begun."""
        self._grace_s = grace_s
        self._speaks = speaks
        self._first: int | None = None
        """The signal that came first."""
        self._last_at = 0.0
        self._has_grace = False
        self._is_ending = False
        """Whether Terminated has been raised."""

    def is_requested(self) -> bool:
        return self._first is not None

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Inside, SIGTERM and SIGINT raise Terminated: at once, or, in a grace period, when that is
        over. SIGINT stays ignored where it was (a job in the background of a script)."""
        handled = [signal.SIGTERM, signal.SIGALRM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            handled.append(signal.SIGINT)
        before = [(signum, signal.signal(signum, self._handle)) for signum in handled]
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in before:
                # While Terminated is on its way to end the process, another SIGTERM must not cut it
                # short: exit code and message are those of the first signal.
                is_over = signum == signal.SIGTERM and self._first is not None
                signal.signal(signum, signal.SIG_IGN if is_over else handler)

    @contextmanager
    def grace_period(self, is_granted: bool = True) -> Iterator[None]:
        """Inside, the first signal only sets is_requested, and the code may finish its work.
        Terminated is raised at the end of the block, or after grace_s if that comes first.

        If the grace period is not granted, the signal raises Terminated at once.
        """
        self._has_grace = is_granted
        try:
            yield
        finally:
            self._has_grace = False
        if self._first is not None:
            self._end()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGALRM:
            self._end()
        if self._first is None:
            self._first, self._last_at = signum, time.monotonic()
            if not (self._has_grace and self._grace_s > 0):
                self._end()
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)
            self._say_grace(signum)
        elif self._is_second_press(signum):
            if self._is_ending:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            self._end()

    def _is_second_press(self, signum: int) -> bool:
        since_s, self._last_at = time.monotonic() - self._last_at, time.monotonic()
        return signal.SIGINT in (signum, self._first) and since_s > SAME_PRESS_S

    def _end(self) -> None:
        assert self._first is not None, "an alarm without a signal before it"
        self._is_ending = True
        raise Terminated(self._first)

    def _say_grace(self, signum: int) -> None:
        if not self._speaks:
            return
        is_interrupt = signum == signal.SIGINT
        message = (
            f"pipeline.run: {'Ctrl-C' if is_interrupt else 'SIGTERM'}: finishing the rows that are "
            f"in the engine, within shutdown_grace_s={self._grace_s:g} s; "
            f"{'a second ' * is_interrupt}Ctrl-C stops at once\n"
        )
        # A terminal shows the progress line without a line end. Not `print`: the signal may have
        # interrupted one, and a stream cannot be entered twice.
        start = "\n" if sys.stderr.isatty() else ""
        os.write(2, f"{start}{message}".encode())
