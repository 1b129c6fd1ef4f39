"""The time that is left, and the device's clock."""

import time
from dataclasses import dataclass

import torch

BEGIN = time.perf_counter()
"""About when this process began: the benchmark's imports come first."""


@dataclass(slots=True)
class Deadline:
    """A moment of time.perf_counter()."""

    at: float

    @classmethod
    def in_seconds(cls, seconds: float) -> "Deadline":
        return cls(time.perf_counter() + seconds)

    @property
    def left_s(self) -> float:
        return self.at - time.perf_counter()

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0

    def share(self, count: int) -> "Deadline":
        """The end of the first of `count` equal shares of the time left."""
        return Deadline.in_seconds(max(0.0, self.left_s) / max(1, count))


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
