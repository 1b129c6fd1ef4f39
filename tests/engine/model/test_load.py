"""A checkpoint is read back exactly; a wrong one is refused with a message that names why."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.model.families import llada2
from engine.model.load import fetch_checkpoint, load_model, read_config
from engine.model.moe import Router
from engine.model.weight_map import weight_map
from engine.model.weights import save_weights
from tests.tiny import (
    llada2_shapes,
    tiny_llada2_model,
    tiny_llada2_raw_config,
    tiny_raw_config,
    write_tiny_checkpoint,
    write_tiny_llada2_checkpoint,
)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    written = write_tiny_checkpoint(tmp_path)
    loaded = load_model(tmp_path)
    for (name, ours), theirs in zip(loaded.named_parameters(), written.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert not ours.requires_grad


def test_dtype_is_converted_while_reading(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    assert load_model(tmp_path, torch.bfloat16).head.weight.dtype == torch.bfloat16


def test_a_checkpoint_may_have_several_files(tmp_path: Path) -> None:
    written = write_tiny_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    for i, some in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in some}, tmp_path / f"model-0000{i}.safetensors")
    assert torch.equal(load_model(tmp_path).head.weight, written.head.weight)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read .* download"):
        load_model(tmp_path)


def test_a_tensor_in_two_files_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    name = "model.transformer.ln_f.weight"
    save_file({name: torch.ones(48)}, tmp_path / "more.safetensors")
    with pytest.raises(ValueError, match=f"in 2 files {name}"):
        load_model(tmp_path)


def change_tensors(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors") | change
    save_file({n: t for n, t in tensors.items() if t is not None}, folder / "model.safetensors")


def test_missing_surplus_and_misshapen_tensors_are_all_named(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    change_tensors(
        tmp_path,
        {
            "model.transformer.blocks.1.k_proj.weight": None,
            "model.transformer.blocks.0.q_proj.bias": torch.zeros(48),
            "model.transformer.ln_f.weight": torch.zeros(47),
        },
    )
    with pytest.raises(ValueError, match="download the checkpoint again") as caught:
        load_model(tmp_path)
    message = str(caught.value)
    assert "missing model.transformer.blocks.1.k_proj.weight [48, 48]" in message
    assert "surplus model.transformer.blocks.0.q_proj.bias [48]" in message
    assert "misshapen model.transformer.ln_f.weight [47], not [48]" in message


def test_two_misshapen_tensors_that_together_fit_are_refused(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    block = "model.transformer.blocks.0"
    change_tensors(
        tmp_path,
        {
            f"{block}.q_proj.weight": torch.zeros(40, 48),
            f"{block}.k_proj.weight": torch.zeros(56, 48),
        },
    )
    with pytest.raises(ValueError, match=r"misshapen .*q_proj"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not one of"),
        ({"include_qkv_bias": True}, "include_qkv_bias=True"),
        ({"alibi": True}, "alibi=True"),
        ({"block_type": "sequential"}, "block_type='sequential'"),
        ({"multi_query_attention": True}, "multi_query_attention=True"),
        ({"rope": False}, "rope=False"),
        ({"mask_token_id": 5000}, "mask_token_id=5000 is outside the vocabulary of 97 ids"),
        ({"eos_token_id": 95}, "both 95"),
        ({"n_kv_heads": 3}, "not a multiple of num_kv_heads=3"),
        ({"d_model": 44}, "head_dim=11"),
    ],
)
def test_an_unsupported_config_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_raw_config(**change)))
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_qkv_bias": True}, "use_qkv_bias=True"),
        ({"use_qk_norm": False}, "use_qk_norm=False"),
        ({"score_function": "softmax"}, "score_function='softmax'"),
        ({"norm_topk_prob": False}, "norm_topk_prob=False"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling="),
        ({"rotary_dim": 16}, "rotary_dim=16: the LLaDA2 loader supports only 8"),
        ({"block_size": 16}, "block_size=16: the LLaDA2 loader supports only 8"),
        ({"moe_shared_expert_intermediate_size": 7}, "moe_shared_expert_intermediate_size=7"),
        ({"num_experts_per_tok": 1}, "num_experts_per_tok=1"),
        ({"n_group": 3}, "num_experts=16 in num_groups=3"),
        ({"partial_rotary_factor": 0.7, "rotary_dim": 11}, "rotary_dim=11"),
        ({"mask_token_id": 156895}, "mask_token_id=156895 is outside the vocabulary"),
        ({"block_length": -1}, "block_length=-1"),
    ],
)
def test_an_unsupported_llada2_config_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_llada2_raw_config(**change)))
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


def test_stacked_experts_are_written_in_the_published_layout_and_read_back(tmp_path: Path) -> None:
    model = tiny_llada2_model()
    pieces = weight_map(model.config, llada2.NAMES)
    save_weights(model, pieces, tmp_path / "model.safetensors", torch.float32)
    raw = tiny_llada2_raw_config()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == llada2_shapes(raw)
    second = tensors["model.layers.1.mlp.experts.2.up_proj.weight"]
    assert torch.equal(second, model.layers[1].mlp.experts.gate_up[2, 20:])
    loaded = load_model(tmp_path)
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_all_faults_among_the_experts_are_named(tmp_path: Path) -> None:
    write_tiny_llada2_checkpoint(tmp_path)
    experts = "model.layers.1.mlp.experts"
    change_tensors(
        tmp_path,
        {
            f"{experts}.3.up_proj.weight": None,
            f"{experts}.16.up_proj.weight": torch.zeros(20, 48),
            f"{experts}.15.down_proj.weight": torch.zeros(20, 48),
            "model.layers.2.mlp.gate.expert_bias": None,
        },
    )
    with pytest.raises(ValueError, match="download the checkpoint again") as caught:
        load_model(tmp_path)
    message = str(caught.value)
    assert f"missing {experts}.3.up_proj.weight [20, 48]" in message
    assert f"surplus {experts}.16.up_proj.weight [20, 48]" in message
    assert f"misshapen {experts}.15.down_proj.weight [20, 48], not [48, 20]" in message
    assert "missing model.layers.2.mlp.gate.expert_bias [16]" in message


def test_routers_stay_in_float32(tmp_path: Path) -> None:
    write_tiny_llada2_checkpoint(tmp_path)
    model = load_model(tmp_path, torch.bfloat16)
    routers = [module for module in model.modules() if isinstance(module, Router)]
    assert len(routers) == 2
    assert all(p.dtype == torch.float32 for router in routers for p in router.parameters())
    assert model.layers[1].mlp.experts.down.dtype == torch.bfloat16
    save_weights(
        model,
        weight_map(model.config, llada2.NAMES),
        tmp_path / "model.safetensors",
        torch.bfloat16,
    )
    again = load_model(tmp_path, torch.bfloat16)
    for (name, ours), theirs in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_model(tmp_path)
    raw = tiny_raw_config()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        load_model(tmp_path)
    del raw["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="rope_theta is missing"):
        load_model(tmp_path)


def test_a_checkpoint_that_cannot_be_found_gives_a_clear_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"model\.path=nobody/nothing .* is not a folder"):
        fetch_checkpoint("nobody/nothing")
    with pytest.raises(ValueError, match=r"model\.path=/no/such/folder"):
        fetch_checkpoint("/no/such/folder")
