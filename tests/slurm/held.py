"""`-m tests.slurm.held ARGS`: pipeline.run whose workers wait once the file `hold` says so.

`hold` in the working folder holds a number: while so many parts are done, no worker writes another.
So a test interrupts a job in its middle, however fast the machine is. Without the file nobody
waits.
"""

import time
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.generate.driver import Driver
from pipeline.launch import launch
from pipeline.run import run

HOLD = Path("hold")


def most() -> float:
    """How many parts may be done before the workers wait."""
    try:
        return int(HOLD.read_text())
    except FileNotFoundError:
        return float("inf")
    except ValueError:  # it is being written
        return 0


def main() -> None:
    write = Driver._write

    def held(self: Driver, full: Any) -> None:
        while len(self._folder.parts_done()) >= most() and not self._shutdown.is_requested():
            time.sleep(0.02)
        write(self, full)

    with mock.patch.object(Driver, "_write", held):
        launch(run)


if __name__ == "__main__":
    main()
