"""Writes small random checkpoints in exactly the published layouts.

The layout covers the keys of config.json, tensor names and files, and tokenizer files. The weights
are those of a reference of the same architecture (tests/published_references.py).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel

from tests.published_configs import CONFIGS
from tests.published_references import LIVE, reference_of

LLAMA_TO_LLADA = {
    "model.embed_tokens": "model.transformer.wte",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
    "model.layers": "model.transformer.blocks",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "self_attn.o_proj": "attn_out",
    "self_attn.": "",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
GLM_TO_LLADA2 = {
    "model.embed_tokens": "model.word_embeddings",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
    "self_attn.o_proj": "attention.dense",
    "mlp.gate.e_score_correction_bias": "mlp.gate.expert_bias",
}
QWEN_WORDS = 151643
"""Number of words in Qwen's vocabulary, before the added tokens."""
QWEN_ADDED = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
}
# Layout -> (tokenizer_class, number of words before the added tokens, added tokens with a name).
# DiffuCoder's layout is Dream's, with another tokenizer.
TOKENIZERS: dict[str, tuple[str, int, dict[str, int]]] = {
    "llada": (
        "PreTrainedTokenizerFast",
        126080,
        {
            "<|startoftext|>": 126080,
            "<|endoftext|>": 126081,
            "<|mdm_mask|>": 126336,
            "<|start_header_id|>": 126346,
            "<|end_header_id|>": 126347,
            "<|eot_id|>": 126348,
        },
    ),
    "llada_moe": (
        "PreTrainedTokenizerFast",
        156891,
        {
            "<|startoftext|>": 156891,
            "<|endoftext|>": 156892,
            "<|mask|>": 156895,
            "<role>": 156898,
            "</role>": 156899,
            "<|role_end|>": 156900,
        },
    ),
    "dream": (
        "DreamTokenizer",
        QWEN_WORDS,
        QWEN_ADDED | {"<|beginoftext|>": 151665, "<|mask|>": 151666},
    ),
    "diffucoder": (
        "DreamTokenizer",
        QWEN_WORDS,
        QWEN_ADDED | {"<|beginoftext|>": 151665, "<|mask|>": 151666, "<|dlm_pad|>": 151667},
    ),
    "fast_dllm_v2": ("Qwen2Tokenizer", QWEN_WORDS, QWEN_ADDED | {"|<MASK>|": 151665}),
    "sdar": ("Qwen2Tokenizer", QWEN_WORDS, QWEN_ADDED | {"<|MASK|>": 151669}),
    "stable_diffcoder": (
        "PreTrainedTokenizerFast",
        155136,
        {
            "<[begin▁of▁sentence]>": 0,
            "<[PAD▁TOKEN]>": 1,
            "<[end▁of▁sentence]>": 2,
            "<[MASK_TOKEN]>": 5,
        },
    ),
}
NAMED = {
    "llada": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"},
    "llada_moe": {"eos_token": "<|endoftext|>", "mask_token": "<|mask|>"},
    "dream": {
        "bos_token": "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
    },
    "diffucoder": {"eos_token": "<|endoftext|>", "mask_token": "<|mask|>"},
    "fast_dllm_v2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "sdar": {"eos_token": "<|im_end|>", "mask_token": "<|MASK|>"},
    "stable_diffcoder": {
        "bos_token": "<[begin▁of▁sentence]>",
        "eos_token": "<[end▁of▁sentence]>",
    },
}
TOKENIZER_OF = {
    "llada2": "llada_moe",
    "llada2_1": "llada_moe",
    "fast_dllm_v2_small": "fast_dllm_v2",
    "sdar_moe": "sdar",
    "illada": "stable_diffcoder",
    "dream_reasoner": "sdar",
    "rnd1": "sdar",
}


def small_vocabulary(layout: str, mask: int, eos: int) -> dict[str, Any]:
    """Changes to a layout's config.json that shrink the vocabulary, so that forwards are cheap."""
    raw: dict[str, Any] = {"vocab_size": LIVE, "mask_token_id": mask, "eos_token_id": eos}
    if layout == "llada":
        raw["embedding_size"] = LIVE
    return raw


def write_weights(folder: Path, layout: str, **changes: Any) -> PreTrainedModel:
    """Write config.json, with `changes`, and the tensors in two files; returns the reference."""
    raw = CONFIGS[layout] | changes
    reference = reference_of(layout, raw)
    tensors = published_tensors(layout, reference.state_dict(), raw)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=2))
    names, files = sorted(tensors), {}
    for i, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(some, file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return reference


def published_tensors(
    layout: str, theirs: dict[str, Tensor], raw: dict[str, Any]
) -> dict[str, Tensor]:
    """The reference's tensors as the published files name, pack and split them."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        root, _, leaf = name.rpartition(".")
        if leaf == "gate_up_proj":
            for j, both in enumerate(tensor):
                gate, up = both.chunk(2)
                tensors[f"{root}.{j}.gate_proj.weight"] = gate.contiguous()
                tensors[f"{root}.{j}.up_proj.weight"] = up.contiguous()
        elif leaf == "down_proj":
            for j, down in enumerate(tensor):
                tensors[f"{root}.{j}.down_proj.weight"] = down.contiguous()
        elif name != "lm_head.weight" or not raw.get("tie_word_embeddings") or layout == "illada":
            tensors[name] = tensor.clone()
    if layout.startswith("llada2"):
        for i in range(raw["num_hidden_layers"]):
            attn = f"model.layers.{i}.self_attn"
            qkv = [tensors.pop(f"{attn}.{letter}_proj.weight") for letter in "qkv"]
            tensors[f"model.layers.{i}.attention.query_key_value.weight"] = torch.cat(qkv)
        return _renamed(tensors, GLM_TO_LLADA2)
    return _renamed(tensors, LLAMA_TO_LLADA) if layout == "llada" else tensors


def write_tokenizer(folder: Path, layout: str) -> None:
    """Write a tokenizer of bytes, filler words up to the published number, and the added tokens."""
    kind = TOKENIZER_OF.get(layout, layout)
    cls, num_words, named = TOKENIZERS[kind]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    by_id = {id: token for token, id in named.items()}
    # Seed's added tokens come before the words, all others' behind them.
    first_word = max(by_id) + 1 if max(by_id) < num_words else 0
    words = {letter: id for id, letter in enumerate(letters, first_word)}
    words |= {f"unused {id}": id for id in range(len(letters) + first_word, num_words)}
    added_ids = range(first_word) if first_word else range(num_words, max(by_id) + 1)
    added = {by_id.get(id, f"<|reserved_token_{id}|>"): id for id in added_ids}
    if first_word:
        words |= added
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "added_tokens_decoder": {
            str(id): {"content": token, **flags, "special": True} for token, id in added.items()
        },
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "tokenizer_class": cls,
        **NAMED[kind],
    }
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("dream", "diffucoder", "sdar"):
        config["auto_map"] = {"AutoTokenizer": [f"tokenization_{kind}.{cls}", None]}
        (folder / f"tokenization_{kind}.py").write_text("raise RuntimeError('its code was run')\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(NAMED[kind]))
    if cls != "PreTrainedTokenizerFast":
        (folder / "vocab.json").write_text(json.dumps(words))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        (folder / "added_tokens.json").write_text(json.dumps(added))
    if cls != "DreamTokenizer":
        _backend(words, list(added), cls).save(str(folder / "tokenizer.json"))


def _backend(words: dict[str, int], added: list[str], cls: str) -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if cls == "Qwen2Tokenizer":
        backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(added)
    return backend


def _renamed(tensors: dict[str, Tensor], renames: dict[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for theirs, published in renames.items():
            name = name.replace(theirs, published)
        renamed[name] = tensor
    return renamed
