"""A stand-in for CUDA graphs on the CPU: records a function's operations and runs them again.

Like a graph, a tape knows the function only by what it launched when it was captured. A replay runs
the same operations with the same shapes and Python numbers on the same tensors, so whatever the
function had decided on the host shows as other values. What a graph cannot do at all raises
CannotCapture: reading a tensor on the host, an operation whose output's shape depends on values,
and a tensor that is made from data of the host each time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.decoding import reduction
from engine.engine import DiffusionEngine
from engine.graphs import Capture, Captured, Graphs
from engine.kernel_choice import TorchKernels

aten = torch.ops.aten
READS_HOST = {
    *(aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.allclose),
    *(aten.nonzero, aten.nonzero_numpy, aten.argwhere, aten.masked_select, aten.bincount),
    *(aten._unique2, aten._unique, aten.unique_dim, aten.unique_consecutive),
    aten.unique_dim_consecutive,
}
"""Operations that read values on the host, to return them or to know the shape of their output."""
READING_METHODS = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__, Tensor.__bool__),
    *(Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__contains__),
}
"""The same for methods that read a CPU tensor without an operation, or a GPU's as Tensor.cpu."""

# A Python number that is assigned to a part of a tensor is a tensor of no dimension on the way. On
# a GPU too it is only an argument of the launch, so such tensors count as numbers.


def use_graphs(engine: DiffusionEngine, capture: Capture) -> None:
    """Let an engine on the CPU run graphs."""
    reduce_as_on_a_gpu(engine)
    engine.forwards.graphs = Graphs(engine.forwards.device_part, engine.forwards.sender, capture)


def reduce_as_on_a_gpu(engine: DiffusionEngine) -> None:
    """Take the reduction of plain torch on a GPU: the CPU's own reads the logits on the host."""
    kernels = engine.runner.kernels
    assert isinstance(kernels, TorchKernels), "Triton's reduction is the same everywhere"
    kernels.reduction = reduction.TORCH


class CannotCapture(Exception):
    """The function does what no graph can hold."""


class TapeCapture:
    """An engine.graphs.Capture that counts its captures and replays."""

    def __init__(self) -> None:
        self.num_captures = 0
        self.num_replays = 0

    def __call__(self, function: Callable[[], Tensor]) -> Captured:
        """Run the function twice, as a warm-up and as the capture: what it uses but has not made
        must be the same in both."""
        warm_up, tape = _Tape(), _Tape()
        _run(function, warm_up)
        output = _run(function, tape)
        new = tape.used.keys() - warm_up.used.keys()
        if new:
            shapes = [tuple(tape.used[key].shape) for key in new]
            raise CannotCapture(f"tensors of shapes {shapes} are made on the host each time")
        self.num_captures += 1

        def replay() -> None:
            self.num_replays += 1
            tape.replay()

        return Captured(replay, output)


def run_again(function: Callable[[], Tensor]) -> Captured:
    """An engine.graphs.Capture that only calls the function again, whatever it does."""
    output = function()
    return Captured(lambda: output.copy_(function()), output)


class _Tape(TorchDispatchMode):
    """Records the operations that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []
        self._made: set[int] = set()
        self.used: dict[int, Tensor] = {}
        """The tensors that were there before, by storage. Kept, so that no other takes their
        place in memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        _refuse(func, args, kwargs)
        for tensor in inputs:
            if _storage(tensor) not in self._made and tensor.dim() > 0:
                self.used.setdefault(_storage(tensor), tensor)
        output = func(*args, **kwargs)
        theirs = {_storage(tensor) for tensor in inputs}
        new = [tensor for tensor in _tensors(output) if _storage(tensor) not in theirs]
        self._made.update(map(_storage, new))
        self._operations.append((func, args, kwargs, _tensors(output)))
        return output

    def replay(self) -> None:
        """Run all operations again, and put what they return where it was at the capture."""
        for func, args, kwargs, outputs in self._operations:
            again = _tensors(func(*args, **kwargs))
            for old, new in zip(outputs, again, strict=True):
                assert old.shape == new.shape, f"{func} returned another shape"
                if _storage(old) != _storage(new):
                    old.copy_(new)


class NoReading(TorchFunctionMode):
    """Refuses methods that read a CPU tensor without an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING_METHODS:
            raise CannotCapture(f"{func} reads a tensor on the host")
        if func in (torch.tensor, torch.as_tensor):
            raise CannotCapture(f"{func} makes a tensor from data of the host")
        return func(*args, **(kwargs or {}))


def _run(function: Callable[[], Tensor], tape: _Tape) -> Tensor:
    with tape, NoReading():
        return function()


def _refuse(func: Any, args: Any, kwargs: Any) -> None:
    packet = func.overloadpacket
    if packet in READS_HOST or func is aten.where.default:
        raise CannotCapture(f"{func} reads a tensor on the host")
    if packet in (aten.lift_fresh, aten.lift) and args[0].dim() > 0:
        raise CannotCapture(f"{func} makes a tensor from data of the host")
    is_index = packet in (aten.index, aten.index_put, aten.index_put_)
    if is_index and any(x.dtype in (torch.bool, torch.uint8) for x in _tensors(args[1])):
        raise CannotCapture(f"{func} by a mask reads the number of its elements on the host")
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        raise CannotCapture(f"{func} without output_size reads its counts on the host")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
