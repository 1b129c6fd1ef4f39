"""Which models the kernels say they can run."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from engine.kernels.supported import ModelShape, unsupported

CPU = torch.device("cpu")
LLADA2_MINI = ModelShape(
    hidden_size=2048,
    head_dim=128,
    num_heads=16,
    num_kv_heads=4,
    num_experts=256,
    num_groups=8,
    num_chosen_groups=4,
)
DREAM = ModelShape(hidden_size=3584, head_dim=128, num_heads=28, num_kv_heads=4)
TINY = ModelShape(hidden_size=40, head_dim=8, num_heads=5, num_kv_heads=5)


@pytest.mark.parametrize("shape", [LLADA2_MINI, DREAM, TINY])
def test_models_of_all_families(shape: ModelShape) -> None:
    assert unsupported(shape, torch.float32, CPU) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 512}, "head_dim=512: the kernels take at most 256"),
        ({"num_heads": 128, "num_kv_heads": 1}, "128 query heads share a K/V head"),
        ({"hidden_size": 65536}, "hidden_size=65536: the kernels take at most 32768"),
        ({"num_experts": 192}, "num_experts=192 in num_groups=8: the kernels choose among groups"),
    ],
)
def test_refused_shapes(changes: dict[str, int], message: str) -> None:
    reason = unsupported(replace(LLADA2_MINI, **changes), torch.float32, CPU)
    assert reason is not None
    assert message in reason


def test_any_number_of_experts_without_groups() -> None:
    shape = replace(LLADA2_MINI, num_experts=192, num_groups=1, num_chosen_groups=1)
    assert unsupported(shape, torch.float32, CPU) is None


def test_the_interpreter_computes_in_float32_only() -> None:
    reason = unsupported(DREAM, torch.bfloat16, CPU)
    assert reason == "dtype torch.bfloat16: Triton's interpreter computes right in float32 only"
    assert "float32, float16 and bfloat16" in str(unsupported(DREAM, torch.float64, CPU))


def test_a_cpu_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    assert unsupported(DREAM, torch.float32, CPU) == "device cpu: the kernels need an NVIDIA GPU"


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert unsupported(DREAM, torch.float32, CPU) == "triton is not installed"


def test_what_decides_needs_no_triton() -> None:
    names = ("common", "expert_tiles", "reference", "supported", "tiles")
    code = "import sys; sys.modules['triton'] = None; import " + ", ".join(
        f"engine.kernels.{name}" for name in names
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    reason = unsupported(DREAM, torch.bfloat16, device)
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) < (9, 0):
        assert reason is not None
        assert f"capability {major}.{minor}: the kernels need 9.0 or higher" in reason
    else:
        assert reason is None or "bytes of shared memory" in reason
