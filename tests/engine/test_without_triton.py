"""The engine runs where triton is not installed, as it need not be on a CPU."""

import subprocess
import sys

SCRIPT = """
import sys
from importlib.abc import MetaPathFinder

class NoTriton(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTriton())
sys.modules["triton"] = None  # find_spec("triton") is then None

import engine.llm, engine.model.plan.__main__
from engine.cache.dual import DualCache
from engine.decoding.threshold import Threshold
from engine.engine import DiffusionEngine, EngineConfig
from engine.errors import UserError
from engine.kernel_choice import TorchKernels
from tests.tiny import mixed_requests, tiny_model

def made(kernels):
    return DiffusionEngine(
        tiny_model(), config=EngineConfig(kernels=kernels), decoding=Threshold(), cache=DualCache()
    )

for kernels in ("auto", "torch"):
    engine = made(kernels)
    assert isinstance(engine.runner.kernels, TorchKernels)
    print([result.error for result in engine.results(mixed_requests(2))])
try:
    made("triton")
except UserError as error:
    print(error)
"""


def test_an_engine_without_triton() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[None, None]",
        "[None, None]",
        "engine.kernels=triton: triton is not installed; take engine.kernels=auto, which takes "
        "plain torch where the kernels do not serve",
    ]
