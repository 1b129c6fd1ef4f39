"""Computes how many KV-cache pages fit into memory, and recognises out-of-memory errors."""

from pathlib import Path

import torch

from engine.config import EngineConfig
from engine.errors import UserError
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer

MEMORY_FILE = Path("/proc/meminfo")


class GroupOutOfMemory(MemoryError):
    """A rank of a tensor-parallel group ran out of memory in a forward. The other ranks are in the
    middle of the same forward, so the group cannot retry with a smaller one."""


def num_pages(config: EngineConfig, model: Transformer) -> int:
    """How many pages to allocate: cache_tokens' worth or, if that is null, as many as fit into
    memory_fraction of the free memory on the rank that has the least, but no more than
    max_sequences canvases of the model's longest context fill. The scratch page
    (engine/cache/kv.py) comes on top, as do the tokens and the state of each slot.

    Raises:
        UserError: not even one page fits.
    """
    if config.cache_tokens is not None:
        return config.cache_tokens // config.page_size
    device = model.embed.weight.device
    page_bytes = config.page_size * slot_bytes(model)
    fitting = model.parallel.least(fitting_pages(config, page_bytes, free_bytes(device)))
    if fitting < 1:
        raise UserError(
            f"engine.memory_fraction={config.memory_fraction}: leaves no room for a page of "
            f"{page_bytes} bytes on {device}; raise it, or use a smaller model or a larger device"
        )
    return min(fitting, most_pages(config, model.config))


def most_pages(config: EngineConfig, model: ModelConfig) -> int:
    """How many pages max_sequences canvases of the longest context have."""
    return config.max_sequences * config.pages_for(model.max_positions)


def fitting_pages(config: EngineConfig, page_bytes: int, free: int) -> int:
    """How many pages fit into memory_fraction of `free` bytes; may be 0."""
    return int(config.memory_fraction * free) // page_bytes


def slot_bytes(model: Transformer) -> int:
    """Bytes of K and V of one canvas position, over all layers, for the heads on this rank."""
    config, num_kv_heads = model.config, model.num_kv_heads
    return 2 * config.num_layers * num_kv_heads * config.head_dim * model.embed.weight.itemsize


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that can be allocated now.

    Raises:
        UserError: this system does not say how much memory is free.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if MEMORY_FILE.exists():
        for line in MEMORY_FILE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise UserError(
        "engine.cache_tokens=null: this system does not say how much memory is free; "
        "give engine.cache_tokens a number"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that an allocation failed.

    torch raises OutOfMemoryError only for its GPU allocator. Failures of the CPU allocator, the
    CUDA driver and cuBLAS are RuntimeErrors that only their message tells apart.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in (
            "can't allocate memory",
            "not enough memory",
            "CUDA error: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        )
    )
