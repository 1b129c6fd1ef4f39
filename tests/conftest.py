"""Set before torch is imported: tiny matrices on many threads are slower than on one, and a busy
neighbour makes them hundreds of times slower. GPUs are hidden but for `pytest -m gpu`: float32 on
CPU is what is exact."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("-m") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch  # not before the environment is set

    skipped = {}
    if not torch.cuda.is_available():
        skipped["gpu"] = "needs an NVIDIA GPU and `-m gpu`"
    if config.getoption("-m") != "exact":
        skipped["exact"] = "takes an hour; `-m exact`"
    for item in items:
        for marker, reason in skipped.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
