"""Makes a GPU the current one of this thread.

Tensors know their device, but Triton launches on the current one, and an event of time is recorded
on its stream.
"""

from contextlib import AbstractContextManager, nullcontext

import torch


def current(device: torch.device) -> AbstractContextManager[object]:
    """Inside `with`, a GPU is the current one. A CPU needs nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
