"""A tensor-parallel group whose ranks are threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch
from torch import Tensor

from engine.parallel import TensorParallel

T = TypeVar("T")


class ThreadRank(TensorParallel):
    """A rank that exchanges tensors with the other threads over a shared list.

    `num_collectives` counts the exchanges.
    """

    def __init__(self, rank: int, board: list[Tensor], barrier: Barrier) -> None:
        super().__init__()
        self.rank, self.size = rank, len(board)
        self.num_collectives = 0
        self._board, self._barrier = board, barrier

    def sum(self, x: Tensor) -> Tensor:
        return x.copy_(self.gathered(x).sum(0))

    def gathered(self, x: Tensor) -> Tensor:
        self.num_collectives += 1
        self._board[self.rank] = x
        self._barrier.wait()
        every = torch.stack(self._board)
        self._barrier.wait()
        return every


def on_ranks(size: int, work: Callable[[ThreadRank], T]) -> list[T]:
    """Run `work` on every rank and return the results. If one rank fails, all others stop, and its
    error is raised."""
    board, barrier = [torch.empty(0)] * size, Barrier(size, timeout=300)

    def run(rank: int) -> T:
        try:
            return work(ThreadRank(rank, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        runs = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for run in runs if (error := run.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
    return [run.result() for run in runs]
