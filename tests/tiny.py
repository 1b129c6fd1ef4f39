"""Tiny LLaDA and LLaDA2 models for tests, with random weights that give clear predictions."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.model.config import ModelConfig
from engine.model.families import llada, llada2
from engine.model.transformer import Transformer
from engine.model.weight_map import weight_map
from engine.model.weights import save_weights
from engine.request import Request
from tests.llada_configs import LLADA, LLADA2_1

VOCAB_SIZE, MASK, EOS = 97, 95, 96


def tiny_raw_config(**changes: Any) -> dict[str, Any]:
    """A `config.json` with LLaDA's keys; `changes` override them."""
    raw = LLADA | {
        "embedding_size": VOCAB_SIZE,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "max_sequence_length": 256,
        "pad_token_id": EOS,
        "vocab_size": VOCAB_SIZE,
    }
    return raw | changes


def tiny_config(**changes: Any) -> ModelConfig:
    return llada.read_config(tiny_raw_config(**changes))


def tiny_model(seed: int = 1, **changes: Any) -> Transformer:
    """A tiny LLaDA. Its random weights are large enough that confidences range from 0.1 to 1 and
    EOS is predicted sometimes."""
    torch.manual_seed(seed)
    model = Transformer(tiny_config(**changes))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.35 if name != "head.weight" else 1.2)
    head = model.embed if model.config.tied_head else model.head
    head.weight.data[model.config.eos_token_ids[0]] *= 1.6
    return model.eval().requires_grad_(False)


def write_tiny_checkpoint(folder: Path, seed: int = 1, **changes: Any) -> Transformer:
    """Write a checkpoint (no tokenizer) in LLaDA's published layout; returns its model."""
    model = tiny_model(seed, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_raw_config(**changes)))
    pieces = weight_map(model.config, llada.NAMES)
    save_weights(model, pieces, folder / "model.safetensors", torch.float32)
    return model


def tiny_llada2_raw_config(**changes: Any) -> dict[str, Any]:
    """A `config.json` with LLaDA2.1-mini's keys, plus the block length and the token ids."""
    raw = LLADA2_1 | {
        "block_length": 8,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "max_position_embeddings": 256,
        "pad_token_id": EOS,
        "vocab_size": VOCAB_SIZE,
    }
    return raw | changes


def tiny_llada2_model(seed: int = 1, **changes: Any) -> Transformer:
    """A tiny LLaDA2: block-causal, with experts; otherwise like tiny_model."""
    torch.manual_seed(seed)
    model = Transformer(llada2.read_config(tiny_llada2_raw_config(**changes)))
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=0.35 if name != "head.weight" else 1.2)
        elif name.endswith("router.bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.head.weight.data[model.config.eos_token_ids[0]] *= 1.6
    return model.eval().requires_grad_(False)


def llada2_shapes(raw: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape of a LLaDA2 checkpoint, derived from the published layout alone."""
    hidden, head_dim, vocab = raw["hidden_size"], raw["head_dim"], raw["vocab_size"]
    heads = raw["num_attention_heads"] + 2 * raw["num_key_value_heads"]

    def mlp(root: str, size: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{root}.gate_proj.weight": (size, hidden),
            f"{root}.up_proj.weight": (size, hidden),
            f"{root}.down_proj.weight": (hidden, size),
        }

    shapes: dict[str, tuple[int, ...]] = {
        "model.word_embeddings.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocab, hidden),
    }
    for i in range(raw["num_hidden_layers"]):
        root = f"model.layers.{i}"
        shapes |= {
            f"{root}.input_layernorm.weight": (hidden,),
            f"{root}.post_attention_layernorm.weight": (hidden,),
            f"{root}.attention.query_key_value.weight": (heads * head_dim, hidden),
            f"{root}.attention.dense.weight": (hidden, raw["num_attention_heads"] * head_dim),
            f"{root}.attention.query_layernorm.weight": (head_dim,),
            f"{root}.attention.key_layernorm.weight": (head_dim,),
        }
        if i < raw["first_k_dense_replace"]:
            shapes |= mlp(f"{root}.mlp", raw["intermediate_size"])
            continue
        size = raw["moe_intermediate_size"]
        shapes[f"{root}.mlp.gate.weight"] = (raw["num_experts"], hidden)
        shapes[f"{root}.mlp.gate.expert_bias"] = (raw["num_experts"],)
        for j in range(raw["num_experts"]):
            shapes |= mlp(f"{root}.mlp.experts.{j}", size)
        if raw["num_shared_experts"]:
            shapes |= mlp(f"{root}.mlp.shared_experts", size * raw["num_shared_experts"])
    return shapes


def write_tiny_llada2_checkpoint(folder: Path, seed: int = 1, **changes: Any) -> dict[str, Any]:
    """Write a checkpoint (no tokenizer) in LLaDA2's published layout; returns its config.json."""
    raw = tiny_llada2_raw_config(**changes)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * 0.3
        for name, shape in llada2_shapes(raw).items()
    }
    for name in tensors:
        if name.endswith("norm.weight"):
            tensors[name] += 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return raw


def mixed_requests(count: int, *, temperature: float = 0.0, seed: int = 0) -> list[Request]:
    """Requests with random prompts of 1 to 45 tokens and generation regions of 1 to 50 tokens."""
    draw = random.Random(seed)
    return [
        Request(
            request_id=i,
            prompt_ids=[draw.randrange(VOCAB_SIZE - 2) for _ in range(draw.randint(1, 45))],
            max_new_tokens=draw.randint(1, 50),
            temperature=temperature,
            seed=draw.getrandbits(63),
        )
        for i in range(count)
    ]
