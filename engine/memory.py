"""How many pages fit, and was that error a lack of memory?"""

from pathlib import Path

import torch

from engine.config import EngineConfig
from engine.model.transformer import Transformer

MEMORY_FILE = Path("/proc/meminfo")


class GroupOutOfMemory(MemoryError):
    """One rank of a tensor-parallel group found no memory for a forward: the others are in the
    middle of it, so none can run a smaller one instead."""


def num_pages(config: EngineConfig, model: Transformer) -> int:
    """The pages to make: what cache_tokens says, or what memory_fraction of the free memory holds,
    on the rank with the least of it, but no more than max_sequences of the longest canvases fill.

    Raises:
        ValueError: not even one page fits.
    """
    if config.cache_tokens is not None:
        return config.cache_tokens // config.page_size
    device = model.embed.weight.device
    page_bytes = config.page_size * slot_bytes(model)
    fitting = model.parallel.least(fitting_pages(config, page_bytes, free_bytes(device)))
    if fitting < 1:
        raise ValueError(
            f"engine.memory_fraction={config.memory_fraction}: leaves no room for a page of "
            f"{page_bytes} bytes on {device}; raise it, or use a smaller model or a larger device"
        )
    return min(fitting, config.max_sequences * config.pages_for(model.config.max_positions))


def fitting_pages(config: EngineConfig, page_bytes: int, free: int) -> int:
    """The pages that memory_fraction of `free` bytes holds; 0 if not even one."""
    return int(config.memory_fraction * free) // page_bytes


def slot_bytes(model: Transformer) -> int:
    """K and V of one canvas position, over all layers, as far as this rank keeps them."""
    config, num_kv_heads = model.config, model.num_kv_heads
    return 2 * config.num_layers * num_kv_heads * config.head_dim * model.embed.weight.itemsize


def free_bytes(device: torch.device) -> int:
    """Memory that can be allocated now.

    Raises:
        ValueError: this system does not say how much there is.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if MEMORY_FILE.exists():
        for line in MEMORY_FILE.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise ValueError(
        "engine.cache_tokens=null: this system does not say how much memory is free; "
        "give engine.cache_tokens a number"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. torch has a class for what its own allocator on a GPU could not
    get, and only words for a CPU's, the driver's and cuBLAS's."""
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
