"""Divides one model among the ranks of a group (tensor parallelism, arXiv 1909.08053), and
exchanges values between them.

All ranks of a group run the same engine on the same requests in the same order. What every rank
computes in full is the same on each, bit for bit. What a rank computes from its share of the model
goes through `sum` or `gathered`, which return the same on every rank. So all ranks make the same
decisions, and nothing else has to be communicated.
"""

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed all_gather_into_tensor to all_gather_single, and warns about the old name.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


class TensorParallel:
    """One rank's view of its group. Without a group, the rank holds the whole model."""

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        split_experts: bool = False,
    ) -> None:
        """`device` is where the group's backend expects tensors. With `split_experts` a rank holds
        some of the experts whole (expert parallelism), otherwise a slice of each."""
        self._group = group
        self._device = torch.device(device)
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()
        self.split_experts = split_experts

    def share(self, count: int) -> range:
        """This rank's contiguous share of the indices 0 .. count - 1. Every index belongs to
        exactly one rank, and the lengths of the shares differ by at most one."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def longest_share(self, count: int) -> int:
        """Length of the longest share of `count` that any rank has. For sizes that must be the same
        on every rank."""
        return -(-count // self.size)

    def kv_heads(self, num_kv_heads: int) -> range:
        """This rank's key/value heads: its share or, if there are fewer heads than ranks, the one
        head that its query heads need, which other ranks hold too."""
        if num_kv_heads >= self.size:
            return self.share(num_kv_heads)
        head = self.rank * num_kv_heads // self.size
        return range(head, head + 1)

    def sum(self, x: Tensor) -> Tensor:
        """Replace `x` by its sum over the ranks, and return it."""
        if self._group is not None:
            dist.all_reduce(x, group=self._group)
        return x

    def gathered(self, x: Tensor) -> Tensor:
        """Every rank's `x`, [size, *x.shape]. `x` must have the same shape on every rank."""
        if self._group is None:
            return x[None]
        # Flattened, because gloo rejects an output with more dimensions than the input.
        every = x.new_empty(self.size * x.numel())
        _all_gather(every, x.flatten(), group=self._group)
        return every.view(self.size, *x.shape)

    def least(self, value: int) -> int:
        """The smallest `value` of all ranks."""
        return int(self._values(value).min())

    def first(self, value: int) -> int:
        """The first rank's `value`. For values that ranks may see differently (files, time) but
        must agree on."""
        return int(self._values(value)[0])

    def _values(self, value: int) -> Tensor:
        return self.gathered(torch.tensor(value, device=self._device))


ALONE = TensorParallel()
"""A rank without a group, which holds the whole model."""
