"""Copies from the host to the device without making the host wait.

A GPU copies asynchronously only from pinned memory, and allocating that takes long. So a Staging
keeps one piece of it and knows when the last copy out of it is done.
"""

import numpy as np
import torch
from torch import Tensor


class Staging:
    """Host memory that copies to one device start from."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._pinned = torch.empty(0, dtype=torch.int64)
        self._room = self._pinned.numpy()
        """The pinned memory."""
        self._sent: torch.cuda.Event | None = None

    def room(self, size: int) -> np.ndarray:
        """Memory to fill and then `send`, int64 [size] on the host. Waits until the copy that was
        sent before has left it."""
        if not self._is_cuda:
            return np.empty(size, dtype=np.int64)
        if self._sent is not None:
            self._sent.synchronize()
        if self._pinned.numel() < size:
            self._pinned = torch.empty(2 * size, dtype=torch.int64, pin_memory=True)
            self._room = self._pinned.numpy()
        return self._room[:size]

    def send(self, filled: np.ndarray, to: Tensor | None = None) -> Tensor:
        """Copy what `room` gave to the device, in the order of its stream: into `to`, int64 of the
        same size, or into new memory. On a CPU it is there already, unless `to` is given."""
        if not self._is_cuda:
            made = torch.from_numpy(filled)
            return made if to is None else to.copy_(made)
        if to is None:
            to = torch.empty(filled.shape, dtype=torch.int64, device=self._device)
        to.copy_(self._pinned[: filled.size], non_blocking=True)
        self._sent = torch.cuda.Event()
        self._sent.record(torch.cuda.current_stream(self._device))
        return to
