"""A block-causal model for tests, made of a bidirectional one."""

from dataclasses import asdict
from types import SimpleNamespace

from torch import Tensor

from engine.model.layers import Attend
from engine.model.transformer import Transformer
from tests.numerics.reference_model import hidden_states


class BlockCausal:
    """The tiny model, read as one whose positions see their own and all earlier blocks."""

    def __init__(self, model: Transformer, block_length: int) -> None:
        self.model, self.embed, self.logits = model, model.embed, model.logits
        self.config = SimpleNamespace(**asdict(model.config) | {"block_length": block_length})

    def __call__(self, embedded: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        return hidden_states(self.model, embedded, positions, attend)
