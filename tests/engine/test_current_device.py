"""The engine runs on its model's GPU, though another one is the current one: Triton launches on the
current one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from engine import engine as engine_module
from engine import kernel_choice
from engine.current_device import current
from engine.engine import DiffusionEngine
from tests.numerics.combinations import Combination
from tests.tiny import mixed_requests, tiny_model

THRESHOLD = Combination({"name": "dual"}, {"name": "threshold"})


def test_a_gpu_becomes_the_current_one() -> None:
    with current(torch.device("cpu")):
        pass
    its = current(torch.device("cuda:1"))
    assert isinstance(its, torch.cuda.device)
    assert its.idx == 1


def test_an_engine_is_made_and_runs_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[torch.device] = []

    @contextmanager
    def entered(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.pop()

    monkeypatch.setattr(engine_module, "current", entered)
    monkeypatch.setattr(kernel_choice, "current", entered)
    seen: list[list[torch.device]] = []

    def engine(kernels: str) -> DiffusionEngine:
        return THRESHOLD.engine(tiny_model(n_layers=1), block_length=8, kernels=kernels)

    from engine import triton_kernels  # imports triton

    laid_out = triton_kernels.laid_out_with_same_bits
    monkeypatch.setattr(
        triton_kernels,
        "laid_out_with_same_bits",
        lambda *args: seen.append([*inside]) or laid_out(*args),
    )
    engine("triton")
    its = engine("torch")
    forward = its.runner.forward
    its.runner.forward = lambda *args: seen.append([*inside]) or forward(*args)  # type: ignore[method-assign, func-returns-value]
    its.add(mixed_requests(1)[0])
    its.run_iteration()
    assert seen == [[torch.device("cpu")]] * 2


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_gpu() -> None:
    model, requests = tiny_model(), mixed_requests(6)
    expected = THRESHOLD.run(model.cuda(0), requests, block_length=8)
    assert THRESHOLD.run(model.cuda(1), requests, block_length=8) == expected
