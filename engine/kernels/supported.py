"""Can a model run on the Triton kernels, and if not, why not?

Imports no triton, so that engine.kernels=auto can ask anywhere.
"""

import importlib.util
import os
from dataclasses import dataclass

import torch

from engine.kernels.common import power_of_two

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_HEAD_DIM = 256
MOST_GROUP = 64
MOST_WIDTH = 32768
"""Of a row that one program holds in registers."""
LEAST_CAPABILITY = (9, 0)
LEAST_SHARED_BYTES = 227 * 1024
"""The tiles are chosen for the shared memory of a Hopper GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the kernels need to know of a model."""

    hidden_size: int
    head_dim: int
    num_heads: int
    num_kv_heads: int
    num_experts: int = 0
    """0: no experts. The other fields about experts then mean nothing."""
    num_groups: int = 1
    num_chosen_groups: int = 1


def is_interpreted() -> bool:
    """Whether Triton interprets its kernels on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def unsupported(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the model cannot run on the kernels; None if it can."""
    return _unsupported_device(dtype, device) or _unsupported_shape(shape)


def _unsupported_device(dtype: torch.dtype, device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if dtype not in DTYPES:
        return f"dtype {dtype}: the kernels compute in float32, float16 and bfloat16"
    if device.type != "cuda":
        if not is_interpreted():
            return f"device {device}: the kernels need an NVIDIA GPU"
        if dtype != torch.float32:
            return f"dtype {dtype}: Triton's interpreter computes right in float32 only"
        return None
    if torch.version.hip is not None:
        return f"device {device}: the kernels need an NVIDIA GPU"
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    if capability < LEAST_CAPABILITY:
        needs = ".".join(map(str, LEAST_CAPABILITY))
        return (
            f"{properties.name} of compute capability {properties.major}.{properties.minor}: the "
            f"kernels need {needs} or higher"
        )
    shared_bytes = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    if shared_bytes < LEAST_SHARED_BYTES:
        return (
            f"{properties.name} has {shared_bytes} bytes of shared memory for a block: the kernels "
            f"need {LEAST_SHARED_BYTES}"
        )
    return None


def _unsupported_shape(shape: ModelShape) -> str | None:
    group = shape.num_heads // shape.num_kv_heads
    if shape.head_dim > MOST_HEAD_DIM:
        return f"head_dim={shape.head_dim}: the kernels take at most {MOST_HEAD_DIM}"
    if group > MOST_GROUP:
        return f"{group} query heads share a K/V head: the kernels take at most {MOST_GROUP}"
    if shape.hidden_size > MOST_WIDTH:
        return f"hidden_size={shape.hidden_size}: the kernels take at most {MOST_WIDTH}"
    if shape.num_experts and shape.num_chosen_groups < shape.num_groups:
        sizes = (shape.num_groups, shape.num_experts // shape.num_groups)
        if any(power_of_two(size) != size for size in sizes):
            return (
                f"num_experts={shape.num_experts} in num_groups={shape.num_groups}: the kernels "
                "choose among groups only if their number and size are powers of two"
            )
    return None
