"""`-m tests.end_to_end.broken FAULT ARGS`: pipeline.run with a simulated fault.

FAULT is `full_disk`, or anything else for a lack of memory on rank 1.
"""

import errno
import sys
from typing import Any
from unittest import mock

import torch

from engine.runner import ModelRunner
from pipeline.launch import launch
from pipeline.run import run
from pipeline.run_folder.layout import RunFolder
from pipeline.workers.ranks import this_worker


def full_disk(self: RunFolder, file: object, table: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(file))


class NoMemory:
    """Rank 1 is out of memory in its third forward."""

    def __init__(self) -> None:
        self._num_left = 3 if this_worker().rank == 1 else -1
        self._forward = ModelRunner.forward

    def __call__(self, *args: Any) -> torch.Tensor:
        self._num_left -= 1
        if self._num_left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self._forward(*args)


if __name__ == "__main__":
    fault = sys.argv.pop(1)
    if fault == "full_disk":
        patch: Any = mock.patch.object(RunFolder, "write_table", full_disk)
    else:
        breaks = NoMemory()
        patch = mock.patch.object(ModelRunner, "forward", lambda *args: breaks(*args))
    with patch:
        launch(run)
