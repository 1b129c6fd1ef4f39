"""The ranks that hold one model together (tensor parallelism, arXiv 1909.08053): who has which
share of it, and what they tell each other.

All ranks of a group run the same engine on the same requests in the same order. What they compute
whole is the same on each, bit for bit; what each computes of its share goes through `sum` or
`gathered`, which give every rank the same. So all take the same decisions, and nothing else has to
be sent.
"""

import torch
import torch.distributed as dist
from torch import Tensor

# What torch 2.13 calls all_gather_into_tensor, whose name it warns of.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


class TensorParallel:
    """One rank's view of its group; without a group, the only rank."""

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        split_experts: bool = False,
    ) -> None:
        """`device` is where the group's backend takes tensors from. `split_experts` gives a rank
        whole experts (expert parallelism), else it has a slice of each."""
        self._group = group
        self._device = torch.device(device)
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()
        self.split_experts = split_experts

    def share(self, count: int) -> range:
        """This rank's run of `count` things. Each is in one rank's run; lengths differ by one at
        most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def longest_share(self, count: int) -> int:
        """The most that any rank has of `count` things: what has the same shape on every rank is
        cut by this."""
        return -(-count // self.size)

    def kv_heads(self, num_kv_heads: int) -> range:
        """This rank's key/value heads: its share, or, where there are fewer than ranks, the one
        that its query heads need, which other ranks have too."""
        if num_kv_heads >= self.size:
            return self.share(num_kv_heads)
        head = self.rank * num_kv_heads // self.size
        return range(head, head + 1)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the ranks, in place of `x`."""
        if self._group is not None:
            dist.all_reduce(x, group=self._group)
        return x

    def gathered(self, x: Tensor) -> Tensor:
        """[size, *x.shape]: every rank's `x`, which has the same shape on each."""
        if self._group is None:
            return x[None]
        # Flat, since gloo does not take an output with a dimension more than its input.
        every = x.new_empty(self.size * x.numel())
        _all_gather(every, x.flatten(), group=self._group)
        return every.view(self.size, *x.shape)

    def least(self, value: int) -> int:
        """The least `value` of any rank."""
        return int(self._values(value).min())

    def first(self, value: int) -> int:
        """The first rank's `value`: of what each might see differently (files, time), it decides
        for all."""
        return int(self._values(value)[0])

    def _values(self, value: int) -> Tensor:
        return self.gathered(torch.tensor(value, device=self._device))


ALONE = TensorParallel()
