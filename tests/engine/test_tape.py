"""The stand-in for CUDA graphs replays what a graph could, and catches what a graph could not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.graphs import Captured
from tests.engine.tape import CannotCapture, TapeCapture

Function = Callable[[Tensor], Tensor]


def capture(function: Function, x: Tensor) -> Captured:
    with torch.inference_mode():
        return TapeCapture()(lambda: function(x))


def replayed(function: Function, first: list[float], then: list[float]) -> Tensor:
    """Capture with one input, replay with another."""
    x = torch.tensor(first)
    captured = capture(function, x)
    with torch.inference_mode():
        x.copy_(torch.tensor(then))
        captured.replay()
    return captured.output


def in_place(x: Tensor) -> Tensor:
    rows = x.clone().view(2, 2)
    rows[0] += 1
    rows[:, 1] = rows[:, 0] * 2
    rows.index_copy_(0, torch.arange(2).flip(0), rows.clone())
    return rows.sort(dim=0).values.cumsum(0)[1:]


@pytest.mark.parametrize(
    "function",
    [
        in_place,
        lambda x: x.where(x > 0, -1).softmax(0),
        lambda x: x[torch.argsort(x, stable=True)] @ torch.ones(4, 2),
        lambda x: torch.empty_like(x).copy_(x).split(2)[1],
    ],
)
def test_a_replay_computes_from_what_the_inputs_hold_now(function: Function) -> None:
    then = [0.5, -3.0, 7.0, 2.0]
    assert torch.equal(
        replayed(function, [1.0, 2.0, -1.0, 4.0], then), function(torch.tensor(then))
    )


def test_a_replay_changes_what_the_function_changes() -> None:
    x, kept = torch.tensor([1.0, 2.0]), torch.zeros(2)
    captured = capture(lambda x: kept.add_(x), x)
    with torch.inference_mode():
        kept.zero_()
        captured.replay()
        captured.replay()
    assert kept.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.sum().item(),
        lambda x: x if x[0] > 0 else -x,
        lambda x: x[: int(x[0])],
        lambda x: x * x.tolist()[0],
        lambda x: x + float(x.numpy()[0]),
        lambda x: x + float(np.asarray(x)[0]),
        lambda x: x + x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.nonzero()[:, 0],
        lambda x: x.unique(),
        lambda x: torch.where(x > 0)[0],
        lambda x: torch.repeat_interleave(x, torch.tensor([1, 2, 0, 1])),
        lambda x: x.clone().index_put_((x > 0,), torch.ones(())),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: x + torch.tensor(1.0),
        lambda x: x + torch.from_numpy(np.arange(4.0)),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(function: Function) -> None:
    with pytest.raises(CannotCapture):
        capture(function, torch.tensor([1.0, 2.0, -1.0, 4.0]))


def test_numbers_and_shapes_of_the_host_are_those_of_the_capture() -> None:
    """What a function takes from the host without reading the device raises nothing, but comes out
    wrong."""
    host = {"factor": 2.0, "length": 1}
    then = [5.0, 6.0, 7.0, 8.0]

    def function(x: Tensor) -> Tensor:
        return x[: host["length"]].sum() * host["factor"]

    x = torch.ones(4)
    captured = capture(function, x)
    host.update(factor=3.0, length=2)
    with torch.inference_mode():
        x.copy_(torch.tensor(then))
        captured.replay()
    assert captured.output.item() == 10.0
    assert function(x).item() == 33.0
