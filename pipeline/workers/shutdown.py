"""Handle SIGTERM, which a scheduler sends before it takes the machine away.

A worker that is generating takes no new rows. It has shutdown_grace_s seconds to finish the rows in
its engine and to write the parts that these complete. Rows that are not finished by then are
dropped, and the next launch generates them. (torchrun and Slurm send SIGKILL after 30 s.)

    worker             SIGTERM while it generates       SIGTERM at any other time
    a single rank      finishes its rows, then ends     ends at once
    a group of ranks   ends at once: ranks that         ends at once
                       finished different rows
                       would wait for each other

SIGTERM often comes twice: Slurm sends it to every process, and torchrun, having received it,
passes it on to its workers. The second one changes nothing, even if it comes while the process is
already ending.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM ends this process. A BaseException, so that `except Exception` lets it pass."""


class Shutdown:
    """Whether this process has received SIGTERM, and what that does."""

    def __init__(self, grace_s: float) -> None:
        self._requested = False
        self._grace_s = grace_s
        self._has_grace = False

    def is_requested(self) -> bool:
        return self._requested

    @contextmanager
    def handling_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM raises Terminated: at once, or, in a grace period, when that is over.
        Once it has come, the process ignores it: Terminated is on its way to end it."""
        before = [
            (signum, signal.signal(signum, self._handle))
            for signum in (signal.SIGTERM, signal.SIGALRM)
        ]
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in before:
                is_ending = signum == signal.SIGTERM and self._requested
                signal.signal(signum, signal.SIG_IGN if is_ending else handler)

    @contextmanager
    def grace_period(self, is_granted: bool = True) -> Iterator[None]:
        """Inside, SIGTERM only sets is_requested, and the code may finish its work. Terminated is
        raised at the end of the block, or after grace_s if that comes first.

        If the grace period is not granted, SIGTERM raises Terminated at once.
        """
        self._has_grace = is_granted
        try:
            yield
        finally:
            self._has_grace = False
        if self._requested:
            raise Terminated

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM and self._requested:
            return
        is_first, self._requested = not self._requested, True
        if is_first and self._has_grace and self._grace_s > 0:
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)
            return
        raise Terminated
