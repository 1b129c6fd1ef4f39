"""A model's weights under block-causal attention."""

import copy
from dataclasses import replace

from engine.model.transformer import Transformer


def as_block_causal(model: Transformer, block_length: int) -> Transformer:
    """The same parameters; only who sees whom differs."""
    causal = copy.copy(model)
    causal.config = replace(model.config, block_length=block_length)
    return causal
