"""`-m tests.end_to_end.quick_heartbeat ARGS`: pipeline.run with a heartbeat timeout of seconds.

Rank 1 writes nothing: it creates the file HELD when it would write its first part, and waits to be
killed. The other ranks write nothing before that.
"""

import time
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.generate.driver import Driver
from pipeline.launch import launch
from pipeline.run import run

HELD = "held"


def write_once_rank_1_is_held(self: Driver, full: Any) -> None:
    if self._session.worker.rank == 1:
        Path(HELD).touch()
        time.sleep(3600)
    while not Path(HELD).exists():
        time.sleep(0.02)
    write(self, full)


if __name__ == "__main__":
    write = Driver._write
    with (
        mock.patch.multiple(
            "pipeline.plan.heartbeat", BEAT_S=0.5, SILENT_S=5.0, COUNTS_SILENT_S=5.0
        ),
        mock.patch.object(Driver, "_write", write_once_rank_1_is_held),
    ):
        launch(run)
