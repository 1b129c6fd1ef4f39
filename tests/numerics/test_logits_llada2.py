"""A LLaDA2 checkpoint's logits equal those of transformers' GLM-4-MoE with a block-causal mask."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

from engine.model.layers import over_heads
from engine.model.load import load_model, read_config
from engine.model.transformer import Transformer
from tests.tiny import MASK, VOCAB_SIZE, write_tiny_llada2_checkpoint

LEAVES = {
    "attention.dense": "self_attn.o_proj",
    "attention.query_layernorm": "self_attn.q_norm",
    "attention.key_layernorm": "self_attn.k_norm",
    "mlp.gate.expert_bias": "mlp.gate.e_score_correction_bias",
    "model.word_embeddings": "model.embed_tokens",
}


def glm_of(folder: Path, raw: dict[str, Any]) -> Glm4MoeForCausalLM:
    """A GLM with the checkpoint's tensors, which are read from the file here, not by the engine's
    loader."""
    glm = Glm4MoeForCausalLM(
        Glm4MoeConfig(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=raw["num_attention_heads"],
            num_key_value_heads=raw["num_key_value_heads"],
            head_dim=raw["head_dim"],
            rms_norm_eps=raw["rms_norm_eps"],
            rope_parameters={
                "rope_type": "default",
                "rope_theta": raw["rope_theta"],
                "partial_rotary_factor": raw["partial_rotary_factor"],
            },
            max_position_embeddings=raw["max_position_embeddings"],
            moe_intermediate_size=raw["moe_intermediate_size"],
            n_shared_experts=raw["num_shared_experts"],
            n_routed_experts=raw["num_experts"],
            num_experts_per_tok=raw["num_experts_per_tok"],
            n_group=raw["n_group"],
            topk_group=raw["topk_group"],
            routed_scaling_factor=raw["routed_scaling_factor"],
            first_k_dense_replace=raw["first_k_dense_replace"],
            norm_topk_prob=True,
            use_qk_norm=True,
            num_nextn_predict_layers=0,
            pad_token_id=None,
            attn_implementation="eager",
            experts_implementation="eager",
        )
    )
    theirs = load_file(folder / "model.safetensors")
    glm.load_state_dict(glm_weights(theirs, raw), strict=True)
    return glm.eval()


def glm_weights(theirs: dict[str, Tensor], raw: dict[str, Any]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if name.endswith("query_key_value.weight"):
            root = name.replace("attention.query_key_value.weight", "self_attn")
            heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
            rows = [count * raw["head_dim"] for count in (heads, kv_heads, kv_heads)]
            for letter, part in zip("qkv", tensor.split(rows), strict=True):
                weights[f"{root}.{letter}_proj.weight"] = part
        elif ".mlp.experts." not in name:
            for leaf, renamed in LEAVES.items():
                name = name.replace(leaf, renamed)
            weights[name] = tensor
    for i in range(raw["first_k_dense_replace"], raw["num_hidden_layers"]):
        root = f"model.layers.{i}.mlp.experts"
        gates, ups, downs = (
            torch.stack(
                [theirs[f"{root}.{j}.{part}_proj.weight"] for j in range(raw["num_experts"])]
            )
            for part in ("gate", "up", "down")
        )
        weights[f"{root}.gate_up_proj"] = torch.cat((gates, ups), dim=1)
        weights[f"{root}.down_proj"] = downs
    return weights


def block_causal(length: int, block_length: int) -> Tensor:
    """bool [length, length]: whether the row's query attends to the column's key."""
    blocks = torch.arange(length) // block_length
    return blocks[:, None] >= blocks[None]


def our_logits(model: Transformer, canvas: Tensor, sees: Tensor) -> Tensor:
    @over_heads
    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
        out = F.scaled_dot_product_attention(*heads, attn_mask=sees, enable_gqa=True)
        return out[0].transpose(0, 1)

    with torch.inference_mode():
        return model.logits(model(model.embed(canvas), torch.arange(len(canvas)), attend))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_group": 1, "topk_group": 1},
        {"n_group": 4, "topk_group": 4, "num_experts_per_tok": 8},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "first_k_dense_replace": 0},
        {"first_k_dense_replace": 2, "moe_intermediate_size": 21, "n_group": 2, "topk_group": 1},
        {"hidden_size": 44, "num_shared_experts": 2, "block_length": 32},
        {"head_dim": 32, "partial_rotary_factor": 0.25, "block_length": 1},
    ],
    ids=str,
)
def test_llada2_checkpoints_equal_glm(tmp_path: Path, changes: dict[str, Any]) -> None:
    raw = write_tiny_llada2_checkpoint(tmp_path, **changes)
    model, glm = load_model(tmp_path), glm_of(tmp_path, raw)
    torch.manual_seed(0)
    for length in (1, 37, 96):
        canvas = torch.randint(VOCAB_SIZE, (length,))
        canvas[length // 2 :: 3] = MASK
        sees = block_causal(length, raw["block_length"])
        hidden = torch.zeros(length, length).masked_fill(~sees, -torch.inf)
        with torch.no_grad():
            expected = glm(canvas[None], attention_mask=hidden[None, None]).logits[0]
        torch.testing.assert_close(our_logits(model, canvas, sees), expected, rtol=1e-4, atol=1e-4)


def test_the_block_length_comes_from_config_json_or_is_32(tmp_path: Path) -> None:
    write_tiny_llada2_checkpoint(tmp_path)
    assert read_config(tmp_path).block_length == 8
    write_tiny_llada2_checkpoint(tmp_path, block_length=None, block_size=16)
    assert read_config(tmp_path).block_length == 16
    write_tiny_llada2_checkpoint(tmp_path, block_length=None)
    assert read_config(tmp_path).block_length == 32
