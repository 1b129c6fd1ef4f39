"""`-m tests.end_to_end.quick_beats ARGS`: pipeline.run with a run.lock that lapses in seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from pipeline.launch import launch
from pipeline.run import run

BEAT_S, LAPSE_S, WAIT_S = 0.5, 3.0, 1.5


@contextmanager
def quick_lease() -> Iterator[None]:
    with mock.patch.multiple(
        "pipeline.run_folder.lease", BEAT_S=BEAT_S, LAPSE_S=LAPSE_S, WAIT_S=WAIT_S, POLL_S=0.2
    ):
        yield


if __name__ == "__main__":
    with quick_lease():
        launch(run)
