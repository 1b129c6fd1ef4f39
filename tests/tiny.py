"""A LLaDA small enough for tests, with random weights sharpened until its choices are clear."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from engine.model import llada
from engine.model.config import ModelConfig
from engine.model.transformer import Transformer
from engine.model.weights import save_weights
from engine.request import Request

VOCAB_SIZE, MASK, EOS = 97, 95, 96


def tiny_raw_config(**changes: Any) -> dict[str, Any]:
    """`config.json` in LLaDA's keys."""
    raw = {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "activation_type": "silu",
        "alibi": False,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 48,
        "embedding_size": VOCAB_SIZE,
        "eos_token_id": EOS,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": MASK,
        "max_sequence_length": 256,
        "mlp_hidden_size": 80,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": 4,
        "n_kv_heads": 4,
        "n_layers": 2,
        "pad_token_id": EOS,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_theta": 5e5,
        "scale_logits": False,
        "vocab_size": VOCAB_SIZE,
        "weight_tying": False,
    }
    return raw | changes


def tiny_config(**changes: Any) -> ModelConfig:
    return llada.read_config(tiny_raw_config(**changes))


def tiny_model(seed: int = 1, **changes: Any) -> Transformer:
    """Random weights, wide enough that confidences range from 0.1 to 1 and EOS comes up at
    times."""
    torch.manual_seed(seed)
    model = Transformer(tiny_config(**changes))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.35 if name != "head.weight" else 1.2)
    head = model.embed if model.config.tied_head else model.head
    head.weight.data[model.config.eos_token_id] *= 1.6
    return model.eval().requires_grad_(False)


def write_tiny_checkpoint(folder: Path, seed: int = 1, **changes: Any) -> Transformer:
    """A checkpoint folder (no tokenizer) in LLaDA's published layout; returns what is in it."""
    model = tiny_model(seed, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_raw_config(**changes)))
    pieces = llada.weight_map(model.config)
    save_weights(model, pieces, folder / "model.safetensors", torch.float32)
    return model


def mixed_requests(count: int, *, temperature: float = 0.0, seed: int = 0) -> list[Request]:
    """Prompts of 1 to 45 tokens and generation regions of 1 to 50, in no order."""
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
