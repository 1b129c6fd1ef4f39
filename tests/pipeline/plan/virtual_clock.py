"""Simulated time for threads: only one runs at a time, the one whose sleep ends next."""

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class VirtualClock:
    """When all threads sleep or have ended, time jumps to the next end of a sleep."""

    def __init__(self, num_threads: int) -> None:
        self.now = 0.0
        """Seconds of simulated time."""
        self._running = num_threads
        self._changed = threading.Condition()
        self._asleep: list[tuple[float, int]] = []
        self._woken: int | None = None

    def sleep(self, number: int, seconds: float) -> None:
        """Called by thread `number`. Returns when the simulated time has passed."""
        with self._changed:
            heapq.heappush(self._asleep, (self.now + seconds, number))
            self._rest()
            while self._woken != number:
                self._changed.wait()
            self._woken = None

    def end(self) -> None:
        """Called by a thread that will not sleep any more."""
        with self._changed:
            self._rest()

    def _rest(self) -> None:
        self._running -= 1
        if self._running == 0 and self._asleep:
            self.now, self._woken = heapq.heappop(self._asleep)
            self._running = 1
            self._changed.notify_all()


def on_threads(work: Callable[[int], None], num_threads: int) -> None:
    """Run work(0), work(1), ... each in a thread, and raise the first error."""
    with ThreadPoolExecutor(num_threads) as pool:
        for done in [pool.submit(work, number) for number in range(num_threads)]:
            done.result()
