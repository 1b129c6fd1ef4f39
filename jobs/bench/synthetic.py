"""Writes checkpoints of any size in a published layout, with values that can be computed again.

Each value is a function of its tensor's name and its index, so that a loaded model can be checked
without reading the checkpoint a second time.
"""

import json
import zlib
from collections.abc import Callable
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.model.families import FAMILIES, config_of
from engine.model.transformer import Transformer
from engine.model.weight_map import WeightMap, tensor_shapes, weight_map

DISK_DTYPE = torch.bfloat16
FILE_BYTES = 500_000_000
NARROWEST = 64


def write_checkpoint(
    folder: Path, family: str, num_bytes: int, file_bytes: int = FILE_BYTES
) -> None:
    """Write a checkpoint of at least `num_bytes`: config.json, safetensors files of about
    `file_bytes` each, and their index."""
    raw = raw_config(family, num_bytes)
    shapes = tensor_shapes(pieces_of(raw))
    files: list[list[str]] = []
    room = 0
    for name, shape in shapes.items():
        if room <= 0:
            files.append([])
            room = file_bytes
        files[-1].append(name)
        room -= _bytes_of(shape)
    index: dict[str, str] = {}
    for i, names in enumerate(files):
        file = folder / f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        tensors = {name: values(name, shapes[name]) for name in names}
        save_file(tensors, file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file.name)
    total = {"total_size": sum(map(_bytes_of, shapes.values()))}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": total, "weight_map": index})
    )
    (folder / "config.json").write_text(json.dumps(raw))


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """The values of one tensor, in bfloat16, from 0 to 2. No two places of a checkpoint hold the
    same values in the same order."""
    bits = torch.arange(prod(shape), dtype=torch.int32)
    bits.mul_(-1640531527).add_(zlib.crc32(name.encode()) - 2**31)
    bits.bitwise_right_shift_(16).bitwise_and_(0x3FFF)
    return bits.to(torch.int16).view(DISK_DTYPE).view(shape)


def wrong_parameters(model: Transformer, pieces: WeightMap) -> list[str]:
    """The names of the parameters that differ from what was written, converted to their dtype."""
    shapes = tensor_shapes(pieces)
    wrong = []
    for name, parameter in model.named_parameters():
        wanted = [
            values(piece.name, shapes[piece.name])[share]
            for piece in pieces[name]
            if (share := piece.share(model.config, model.parallel)) is not None
        ]
        rows = parameter.flatten(0, -2) if parameter.ndim > 2 else parameter
        parts = rows.split([len(part) for part in wanted])
        if not all(
            torch.equal(part, its.to(part.dtype)) for part, its in zip(parts, wanted, strict=True)
        ):
            wrong.append(name)
    return wrong


def pieces_of(raw: dict[str, Any]) -> WeightMap:
    config = config_of(raw, "synthetic")
    return weight_map(config, FAMILIES[config.family].NAMES)


def raw_config(family: str, num_bytes: int) -> dict[str, Any]:
    """The config.json of a model of at least `num_bytes`: as wide as possible, up to the published
    width, with at least two layers."""
    make, width = RAW_CONFIGS[family], WIDEST[family]
    while width > NARROWEST and checkpoint_bytes(make(width, 2)) > num_bytes:
        width //= 2
    least = checkpoint_bytes(make(width, 2))
    layer_bytes = checkpoint_bytes(make(width, 3)) - least
    return make(width, 2 + max(0, ceil((num_bytes - least) / layer_bytes)))


def checkpoint_bytes(raw: dict[str, Any]) -> int:
    return sum(map(_bytes_of, tensor_shapes(pieces_of(raw)).values()))


def _bytes_of(shape: tuple[int, ...]) -> int:
    return prod(shape) * DISK_DTYPE.itemsize


def _llada(width: int, num_layers: int) -> dict[str, Any]:
    """LLaDA-8B's proportions, with a smaller vocabulary."""
    return {
        "model_type": "llada",
        "d_model": width,
        "n_heads": max(2, width // 128),
        "n_layers": num_layers,
        "mlp_hidden_size": 3 * width,
        "embedding_size": 8 * width,
        "vocab_size": 8 * width,
        "eos_token_id": 0,
        "mask_token_id": 1,
        "max_sequence_length": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e5,
        "weight_tying": False,
    }


def _llada2_moe(width: int, num_layers: int) -> dict[str, Any]:
    """LLaDA2.0-mini's proportions, with a smaller vocabulary and a quarter of its experts."""
    num_heads = max(2, width // 128)
    return {
        "model_type": "llada2_moe",
        "hidden_size": width,
        "num_attention_heads": num_heads,
        "num_key_value_heads": max(2, num_heads // 4),
        "head_dim": width // num_heads,
        "num_hidden_layers": num_layers,
        "first_k_dense_replace": 1,
        "intermediate_size": 5 * width // 2,
        "moe_intermediate_size": width // 4,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "routed_scaling_factor": 2.5,
        "vocab_size": 8 * width,
        "eos_token_id": 0,
        "mask_token_id": 1,
        "max_position_embeddings": 4096,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6,
        "rope_theta": 6e5,
    }


RAW_CONFIGS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "llada": _llada,
    "llada2_moe": _llada2_moe,
}
WIDEST = {"llada": 4096, "llada2_moe": 2048}
"""The hidden sizes of the published models."""
