"""What a report says about where it was made: hardware, library versions, git revision."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from pipeline.stats.versions import git_revision, library_versions

RESULTS = Path(__file__).parent / "results"
"""Where reports are kept."""


def provenance(device: str) -> dict[str, Any]:
    """Hardware, library versions and git revision, for a report."""
    return {
        "hardware": hardware(device),
        "versions": library_versions(),
        "git_revision": git_revision(),
    }


def hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({cpu_name()})"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else []
    )
    return names[0].split(":", 1)[1].strip() if names else platform.machine()
