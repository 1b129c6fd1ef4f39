"""The time of day for the time stamps of a run, and the age of this process.

A time stamp is the time of day at the start of the process plus the seconds that the monotonic
clock has counted since. Setting the system clock meanwhile (by NTP, by hand, after a suspend)
therefore changes no time stamp, and no second of work is lost or counted twice.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


class Clock:
    """A wall clock that never goes back."""

    def __init__(self) -> None:
        self._wall, self._monotonic = datetime.now(UTC), time.monotonic()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._monotonic)

    def not_before(self, moment: datetime, age_s: float) -> None:
        """Put the clock forward so that this worker, which began `age_s` seconds ago, began at
        `moment` or later. `moment` is the last time stamp of the start before: if it is later than
        this worker's beginning, the system clock was set back in between."""
        began = self.now() - timedelta(seconds=age_s)
        self._wall += max(timedelta(0), moment - began)


CLOCK = Clock()
"""The clock of this process."""


def process_age_s() -> float:
    """Seconds since this process started; 0 on a system without /proc (only Linux has it)."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except FileNotFoundError:
        return 0.0
    started_ticks = int(stat.rpartition(")")[2].split()[19])
    started_s = started_ticks / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
