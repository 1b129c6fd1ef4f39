"""Several processes under torchrun: each runs its share of the requests on a GPU of its own.

The harness divides the requests by `rank` and `world_size`, and gathers the results through the
model. The ranks exchange little, so gloo serves, on the CPU.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

HARNESS_DEFAULT = "cuda:0"
"""What the harness's command gives as the device where none is typed; it also falls back to the CPU
then where there is no GPU."""


class Ranks:
    """This process among those of its launch."""

    exchange = torch.device("cpu")
    """Where tensors are that the ranks exchange."""

    def __init__(self, rank: int, size: int, device: str | None) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        """Of this rank's model."""

    @classmethod
    def of_launch(cls, device: str | None) -> "Ranks":
        """As torchrun has started this process; without it, the only one. Each rank of a node takes
        the GPU of its local rank, unless `device` names one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if device == HARNESS_DEFAULT:
            gpu = os.environ.get("LOCAL_RANK", "0")
            device = f"cuda:{gpu}" if torch.cuda.is_available() else "cpu"
        if size == 1:
            return cls(0, 1, device)
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        return cls(dist.get_rank(), size, device)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, one after the other."""
        if self.size == 1:
            return tensor
        flat = tensor.reshape(-1)
        every = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(every, flat)
        return torch.cat(every)

    def gather_object(self, obj: Any, dst: int) -> list[Any] | None:
        """Every rank's object, on rank `dst`; None on the others."""
        if self.size == 1:
            return [obj]
        every: list[Any] | None = [None] * self.size if self.rank == dst else None
        dist.gather_object(obj, every, dst=dst)
        return every

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()
