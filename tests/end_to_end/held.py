"""`-m tests.end_to_end.held NUM ARGS`: pipeline.run whose workers wait once NUM parts are done.

They wait until they are killed or told to end. So a test interrupts a job in its middle, however
fast the machine is. After a restart by torchrun they wait no more.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from pipeline.generate.driver import Driver
from pipeline.launch import launch
from pipeline.run import run
from tests.end_to_end.quick_beats import quick_lease


@contextmanager
def held_after(num_parts: int) -> Iterator[None]:
    """Inside, a worker writes a part only while fewer than `num_parts` are done. Workers that look
    at the same time may each write one more."""
    write = Driver._write

    def held(self: Driver, full: Any) -> None:
        if len(self._folder.parts_done()) >= num_parts:
            while not self._shutdown.is_requested():
                time.sleep(0.02)
        write(self, full)

    with mock.patch.object(Driver, "_write", held):
        yield


if __name__ == "__main__":
    NUM_PARTS = int(sys.argv.pop(1))
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        NUM_PARTS = sys.maxsize
    with quick_lease(), held_after(NUM_PARTS):
        launch(run)
