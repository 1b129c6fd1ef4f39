"""Runs the weights of any model with block-causal attention."""

import copy
from dataclasses import replace

from engine.model.transformer import Transformer


def as_block_causal(model: Transformer, block_length: int) -> Transformer:
    """A model with the same parameters that attends block-causally."""
    causal = copy.copy(model)
    causal.config = replace(model.config, block_length=block_length)
    return causal
