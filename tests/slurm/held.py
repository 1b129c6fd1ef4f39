"""`-m tests.slurm.held ARGS`: pipeline.run whose workers wait, as files in the working folder say.

    hold    a number: while so many parts are done, no worker writes another
    pace    seconds that a worker waits before each part that it writes

So a test interrupts a job in its middle, however fast the machine is. A worker that was told to end
does not wait, unless `hold` is 0: then it writes nothing.
"""

import time
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.generate.driver import Driver
from pipeline.launch import launch
from pipeline.run import run


def number(name: str, otherwise: float) -> float:
    try:
        return float(Path(name).read_text())
    except FileNotFoundError:
        return otherwise


def main() -> None:
    write = Driver._write

    def held(self: Driver, full: Any) -> None:
        end = time.monotonic() + number("pace", 0.0)
        while not self._shutdown.is_requested() or number("hold", 1) == 0:
            has_room = len(self._folder.parts_done()) < number("hold", float("inf"))
            if has_room and time.monotonic() >= end:
                break
            time.sleep(0.02)
        write(self, full)

    with mock.patch.object(Driver, "_write", held):
        launch(run)


if __name__ == "__main__":
    main()
