"""Checkpoints in each Qwen-like family's published names: logits equal transformers', and the
engine's tokens the plain loop's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from engine.model.load import load_model
from tests.numerics.combinations import Combination
from tests.numerics.exact import assert_exact
from tests.numerics.test_logits_llada2 import block_causal, our_logits
from tests.tiny import EOS, MASK, VOCAB_SIZE, mixed_requests

COMMON: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 256,
    "vocab_size": VOCAB_SIZE,
    "eos_token_id": EOS,
    "mask_token_id": MASK,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
MOE = {"num_experts": 8, "num_experts_per_tok": 3}
# Family: (its config.json, the reference's model type, what the reference is told besides).
FAMILIES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "dream": ({"model_type": "Dream"}, "qwen2", {}),
    "fast_dllm_v2": ({"model_type": "Fast_dLLM_Qwen", "bd_size": 16}, "qwen2", {}),
    "fast_dllm_v2_tied": (
        {"model_type": "Fast_dLLM_Qwen", "bd_size": 16, "tie_word_embeddings": True},
        "qwen2",
        {},
    ),
    "sdar": ({"model_type": "sdar", "head_dim": 16, "block_size": 8}, "qwen3", {}),
    "sdar_moe": (
        {
            **MOE,
            "model_type": "sdar_moe",
            "head_dim": 16,
            "block_size": 8,
            "moe_intermediate_size": 20,
            "norm_topk_prob": True,
        },
        "qwen3_moe",
        {},
    ),
    "llada_moe": (
        {**MOE, "model_type": "llada", "expert_intermediate_size": 20, "qk_layernorm": True},
        "qwen3_moe",
        {"moe_intermediate_size": 20, "norm_topk_prob": False, "head_dim": 12},
    ),
}

CAUSAL_CACHES: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "block_causal"},
    {"name": "block_causal", "sub_block_cache": True, "fused_commit": False},
]
BIDIRECTIONAL_CACHES: list[dict[str, Any]] = [
    {"name": name} for name in ("none", "prefix", "dual", "vicinity", "commit", "dkv")
]


def write(folder: Path, family: str) -> Any:
    """The reference model, and a checkpoint of its weights in the published layout."""
    own, model_type, told = FAMILIES[family]
    raw = COMMON | own
    fields = {name: value for name, value in raw.items() if name != "model_type"} | told
    config = AutoConfig.for_model(model_type, **fields, attn_implementation="eager")
    config.rope_parameters = {"rope_type": "default", "rope_theta": raw["rope_theta"]}
    torch.manual_seed(3)
    reference = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in reference.named_parameters():
        std = 0.1 if parameter.ndim == 1 else 0.35
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=std)
    tensors = {}
    for name, tensor in reference.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            root = name.removesuffix(".gate_up_proj")
            for j, both in enumerate(tensor):
                gate, up = both.chunk(2)
                tensors[f"{root}.{j}.gate_proj.weight"] = gate.contiguous()
                tensors[f"{root}.{j}.up_proj.weight"] = up.contiguous()
        elif name.endswith("experts.down_proj"):
            root = name.removesuffix(".down_proj")
            for j, down in enumerate(tensor):
                tensors[f"{root}.{j}.down_proj.weight"] = down.contiguous()
        elif name != "lm_head.weight" or not raw["tie_word_embeddings"]:
            tensors[name] = tensor.clone()
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return reference


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(tmp_path: Path, family: str) -> None:
    reference, model = write(tmp_path, family), load_model(tmp_path)
    for length in (1, 37, 96):
        canvas = torch.randint(VOCAB_SIZE, (length,))
        sees = block_causal(length, model.config.block_length or length)
        hidden = torch.zeros(length, length).masked_fill(~sees, -torch.inf)
        with torch.no_grad():
            expected = reference(canvas[None], attention_mask=hidden[None, None]).logits[0]
        torch.testing.assert_close(our_logits(model, canvas, sees), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoding", ["threshold", "credit", "edit"])
def test_tokens_equal_the_plain_loop(tmp_path: Path, family: str, decoding: str) -> None:
    write(tmp_path, family)
    model = load_model(tmp_path)
    is_causal = model.config.block_length is not None
    for cache in CAUSAL_CACHES if is_causal else BIDIRECTIONAL_CACHES:
        if decoding == "edit" and cache["name"] == "dkv":
            continue
        combination = Combination(cache, {"name": decoding})
        assert_exact(model, combination, mixed_requests(4), 4 if is_causal else 16)
