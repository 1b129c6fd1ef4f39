"""A tiny autoregressive checkpoint, with random weights, a tokenizer and a chat template."""

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.checkpoints import write_tokenizer

CONTEXT = 128


def write_qwen2(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """`changes` go into config.json."""
    tokenizer = write_tokenizer(folder)
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**{**sizes, **changes})).to(dtype)
    for parameter in model.parameters():
        if parameter.dim() == 2:  # large enough that EOS comes sometimes, and predictions are clear
            torch.nn.init.normal_(parameter, std=0.35)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 2.0
    model.save_pretrained(folder)
    return folder
