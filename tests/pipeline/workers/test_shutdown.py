"""SIGTERM, once, twice, and when the time is up."""

import os
import signal
import time

import pytest

from pipeline.workers.shutdown import Shutdown, Terminated


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_takes_no_time_away() -> None:
    """Slurm sends it to all, and torchrun, which has got it too, once more to its workers."""
    shutdown, done = Shutdown(grace_s=5.0), list[bool]()

    def work() -> None:
        with shutdown.heard(), shutdown.finishing():
            terminate()
            time.sleep(0.05)
            terminate()
            done.append(shutdown.is_requested())

    with pytest.raises(Terminated):
        work()
    assert done == [True]


def test_when_the_time_is_up_it_ends() -> None:
    shutdown = Shutdown(grace_s=0.1)

    def work() -> None:
        with shutdown.heard(), shutdown.finishing():
            terminate()
            time.sleep(5.0)

    began = time.monotonic()
    with pytest.raises(Terminated):
        work()
    assert 0.1 <= time.monotonic() - began < 3.0


@pytest.mark.parametrize(("grace_s", "may_finish"), [(0.0, True), (5.0, False)])
def test_without_grace_it_ends_at_once(grace_s: float, may_finish: bool) -> None:
    shutdown, done = Shutdown(grace_s), list[bool]()

    def work() -> None:
        with shutdown.heard(), shutdown.finishing(may_finish):
            terminate()
            done.append(True)

    with pytest.raises(Terminated):
        work()
    assert not done
