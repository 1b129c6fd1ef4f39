"""SIGTERM: what a scheduler sends before it takes the machine away.

A worker in the middle of its rows draws no more, and has shutdown_grace_s to bring those that are
in the engine to their end and whole parts into data/; what is not done by then is dropped, and is
left for the next start. torchrun and Slurm send SIGKILL after 30 s. The signal often comes twice,
from Slurm and from torchrun, which has got it too; the second changes nothing.

    worker          SIGTERM            while it drives           elsewhere
    alone                              finishes, then ends       ends
    in a group                         ends: ranks that finish different rows would wait for
                                       each other
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """No error: whoever handles errors must let it pass."""


class Shutdown:
    """Whether this worker was told to end."""

    def __init__(self, grace_s: float) -> None:
        self._requested = False
        self._grace_s = grace_s
        self._may_finish = False

    def is_requested(self) -> bool:
        return self._requested

    @contextmanager
    def heard(self) -> Iterator[None]:
        """SIGTERM raises Terminated here, at once or when the time is up."""
        before = [
            (signum, signal.signal(signum, self._handle))
            for signum in (signal.SIGTERM, signal.SIGALRM)
        ]
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in before:
                signal.signal(signum, handler)

    @contextmanager
    def finishing(self, may_finish: bool = True) -> Iterator[None]:
        """Within, SIGTERM gives time: is_requested says that it came. It raises at the end."""
        self._may_finish = may_finish
        try:
            yield
        finally:
            self._may_finish = False
        if self._requested:
            raise Terminated

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM and self._requested:
            return
        is_first, self._requested = not self._requested, True
        if is_first and self._may_finish and self._grace_s > 0:
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)
            return
        raise Terminated
