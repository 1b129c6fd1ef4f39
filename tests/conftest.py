"""Settings for all tests: one CPU thread, no GPU, and which markers are skipped.

Tiny matrices are slower on many threads than on one, and hundreds of times slower if the machine is
busy. GPUs are hidden except for `pytest -m gpu`, because exact results are promised for float32 on
CPU; Triton then interprets its kernels on the CPU. All are environment variables, so they are set
before torch and triton are imported.
"""

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with Ctrl-C ignored; many tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("-m") == "gpu":
        os.environ.pop("TRITON_INTERPRET", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch  # after the environment is set

    skipped = {}
    if not torch.cuda.is_available():
        skipped["gpu"] = "needs an NVIDIA GPU and `-m gpu`"
    if config.getoption("-m") != "exact":
        skipped["exact"] = "takes an hour; `-m exact`"
    for item in items:
        for marker, reason in skipped.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
