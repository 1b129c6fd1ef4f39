"""The clock of the model counts each second once."""

import pytest
import torch

from engine.clock import Clock, HostClock, clock_of


class Seconds:
    """A perf_counter that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail_after(duration: float, clock: Clock, seconds: Seconds) -> None:
    with clock:
        seconds.now += duration
        raise MemoryError


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    made = Seconds()
    monkeypatch.setattr("engine.clock.time.perf_counter", made)
    return made


def test_only_the_outermost_counts(seconds: Seconds) -> None:
    clock = clock_of(torch.device("cpu"))
    with clock:
        seconds.now += 1
        with clock:
            seconds.now += 2
    seconds.now += 4
    with pytest.raises(MemoryError):
        fail_after(8, clock, seconds)
    assert clock.take_s() == 11
    assert clock.take_s() == 0


def test_what_runs_while_it_is_paused_does_not_count(seconds: Seconds) -> None:
    clock = HostClock()
    with clock.paused(), clock:
        seconds.now += 1
    with pytest.raises(MemoryError), clock.paused():
        raise MemoryError
    with clock:
        seconds.now += 2
    assert clock.take_s() == 2
