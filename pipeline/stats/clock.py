"""What time is it, and how old is this process?

Whatever the run's files are stamped with is the wall clock's time at the start of the process and
the monotonic seconds since. So a clock that is set meanwhile (by NTP, by hand, after a suspend)
moves nothing, and seconds that were worked are neither lost nor counted twice.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


class Clock:
    """Never goes back."""

    def __init__(self) -> None:
        self._wall, self._monotonic = datetime.now(UTC), time.monotonic()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._monotonic)

    def not_before(self, moment: datetime, age_s: float) -> None:
        """Put it forward if what was written before is from later than `age_s` ago, when this
        worker began: it was set back since."""
        began = self.now() - timedelta(seconds=age_s)
        self._wall += max(timedelta(0), moment - began)


CLOCK = Clock()
"""This process's."""


def process_age_s() -> float:
    """Since this process was started; 0 where the system does not say (it is Linux that does)."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except FileNotFoundError:
        return 0.0
    started_ticks = int(stat.rpartition(")")[2].split()[19])
    started_s = started_ticks / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
