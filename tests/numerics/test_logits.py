"""A loaded checkpoint's logits equal those of transformers' Llama with a bidirectional mask."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import engine
from engine.batch import pack
from engine.cache.none import NoCache
from engine.decoding.fixed import Fixed
from engine.engine import DiffusionEngine, EngineConfig
from engine.model.load import load_model, read_config
from engine.request import Request
from tests.tiny import write_tiny_checkpoint

DEMO = Path(engine.__file__).parent.parent / "jobs" / "demo" / "model"
LEAVES = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}


def llama_of(folder: Path) -> LlamaForCausalLM:
    """A Llama with the checkpoint's tensors, which are read from the file here, not by the engine's
    loader."""
    config = read_config(folder)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=config.tied_head,
            attn_implementation="eager",
        )
    )
    names = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        parts = name.removesuffix(".weight").split(".")[2:]
        if parts[0] == "blocks":
            ours = f"model.layers.{parts[1]}.{LEAVES[parts[2]]}"
        else:
            ours = names[parts[0]]
        weights[f"{ours}.weight"] = tensor.float()
    missing = llama.load_state_dict(weights, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if config.tied_head else [])
    return llama.eval()


def engine_logits(folder: Path, canvases: list[list[int]]) -> list[torch.Tensor]:
    """The engine's logits at every position of the generation regions."""
    made = DiffusionEngine(
        load_model(folder),
        config=EngineConfig(block_length=512),
        decoding=Fixed(),
        cache=NoCache(),
    )
    mask = made.model_config.mask_token_id
    for canvas in canvases:
        prompt = canvas[: canvas.index(mask)]
        made.add(Request(request_id=0, prompt_ids=prompt, max_new_tokens=len(canvas) - len(prompt)))
    plan = made.iterations.schedule()
    assert plan is not None
    with torch.inference_mode():
        made.canvases.write()
        batch = made.forwards.sender.send(pack(plan, made.model_config))
        hidden = made.runner.forward(batch, made.canvases.tokens(batch.slots_Q))
        logits = made.runner.logits(hidden).local_MU
    return list(logits.split(made.iterations.live.arrays.num_masked.tolist()))


def assert_logits_equal(folder: Path) -> None:
    config, llama = read_config(folder), llama_of(folder)
    torch.manual_seed(0)
    words = min(config.mask_token_id, config.eos_token_ids[0])
    canvases = [
        torch.randint(words, (prompt,)).tolist() + [config.mask_token_id] * generated
        for prompt, generated in ((1, 1), (37, 20), (64, 96), (5, 33))
    ]
    for canvas, logits in zip(canvases, engine_logits(folder, canvases), strict=True):
        everyone = torch.zeros(1, 1, len(canvas), len(canvas))
        with torch.no_grad():
            expected = llama(torch.tensor([canvas]), attention_mask=everyone).logits[0]
        expected = expected[canvas.index(config.mask_token_id) :].clone()
        expected[:, config.mask_token_id] = -torch.inf
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_demo_checkpoint_equals_llama() -> None:
    assert_logits_equal(DEMO)


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_kv_heads": 2}, {"weight_tying": True}, {"d_model": 40, "n_heads": 5, "n_kv_heads": 5}],
    ids=str,
)
def test_tiny_checkpoints_equal_llama(tmp_path: Path, changes: dict) -> None:
    write_tiny_checkpoint(tmp_path, **changes)
    assert_logits_equal(tmp_path)
