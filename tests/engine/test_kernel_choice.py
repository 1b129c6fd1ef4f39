"""engine.kernels: what is chosen, what is refused, and what the log says about it."""

import importlib.util
import logging
from typing import Any

import pytest
import torch

from engine.config import EngineConfig
from engine.errors import UserError
from engine.kernel_choice import TorchKernels, kernels_for
from engine.model.moe import keep_routers_float32
from engine.model.transformer import Transformer
from engine.triton_kernels import TritonKernels
from tests.tiny import tiny_llada2_model, tiny_model


def choose(model: Transformer | None = None, **settings: Any) -> object:
    return kernels_for(model or tiny_model(n_layers=1), EngineConfig(**settings))


def test_on_a_cpu_auto_is_plain_torch_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "engine"):
        assert isinstance(choose(kernels="auto"), TorchKernels)
        assert isinstance(choose(kernels="torch"), TorchKernels)
    assert not caplog.records


def test_triton_can_be_interpreted_on_a_cpu() -> None:
    assert isinstance(choose(kernels="triton"), TritonKernels)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: tiny_model(n_layers=1, d_model=4 * 512),
            r"head_dim=512: the kernels take at most",
        ),
        (lambda: tiny_model(n_layers=1).bfloat16(), r"bfloat16: Triton's interpreter"),
        (lambda: tiny_model(n_layers=1).double(), r"dtype torch.float64"),
        (
            lambda: tiny_llada2_model(num_experts=24, n_group=4, topk_group=2),
            r"num_experts=24 in num_groups=4",
        ),
    ],
)
def test_a_model_that_the_kernels_do_not_serve_is_refused(model: Any, message: str) -> None:
    with pytest.raises(
        UserError, match=rf"engine.kernels=triton: .*{message}.*engine.kernels=auto"
    ):
        choose(model(), kernels="triton")


def test_triton_on_a_cpu_without_the_interpreter_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(UserError, match=r"engine.kernels=triton: device cpu: .* NVIDIA GPU; take"):
        choose(kernels="triton")


def test_triton_without_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine.kernels=triton: triton is not installed; take"):
        choose(kernels="triton")
    assert isinstance(choose(kernels="auto"), TorchKernels)


@pytest.mark.gpu
def test_auto_on_a_gpu_says_why_it_is_not_triton(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(choose(tiny_model(n_layers=1).cuda()), TritonKernels)
    with caplog.at_level(logging.WARNING, "engine"):
        assert isinstance(choose(tiny_model(n_layers=1, d_model=4 * 512).cuda()), TorchKernels)
    assert "engine.kernels=auto: plain torch, which is slower: head_dim=512" in caplog.text
    assert "engine.batch_invariant=true holds on a GPU with the Triton kernels only" in caplog.text


@pytest.mark.gpu
def test_the_check_of_linears_is_quick_and_says_what_it_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_llada2_model().to("cuda", torch.bfloat16)
    keep_routers_float32(model)
    with caplog.at_level(logging.INFO, "engine"):
        choose(model)
    (record,) = [r for r in caplog.records if "linears whose bits" in r.message]
    # Little, but other tests use the GPU at the same time.
    assert float(record.message.split("checked in ")[1].split(" s")[0]) < 10
