"""Copies from the host to the device without making the host wait.

A GPU copies asynchronously only from pinned memory, and allocating that takes long. So a Staging
keeps one piece of it and knows when the last copy out of it is done.
"""

import torch
from torch import Tensor


class Staging:
    """Host memory that copies to one device start from."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._pinned = torch.empty(0, dtype=torch.int64)
        self._sent: torch.cuda.Event | None = None

    def room(self, size: int) -> Tensor:
        """Memory to fill and then `send`, int64 [size] on the host. Waits until the copy that was
        sent before has left it."""
        if not self._is_cuda:
            return torch.empty(size, dtype=torch.int64)
        if self._sent is not None:
            self._sent.synchronize()
        if self._pinned.numel() < size:
            self._pinned = torch.empty(2 * size, dtype=torch.int64, pin_memory=True)
        return self._pinned[:size]

    def send(self, filled: Tensor, to: Tensor | None = None) -> Tensor:
        """Copy what `room` gave to the device, in the order of its stream: into `to`, int64 of the
        same size, or into new memory. On a CPU it is there already, unless `to` is given."""
        if not self._is_cuda:
            return filled if to is None else to.copy_(filled)
        if to is None:
            to = torch.empty(filled.shape, dtype=torch.int64, device=self._device)
        to.copy_(filled, non_blocking=True)
        self._sent = torch.cuda.Event()
        self._sent.record(torch.cuda.current_stream(self._device))
        return to
