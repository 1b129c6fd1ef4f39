"""One forward of one sequence, with its K and V in plain tensors and attention written out."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.layers import over_heads
from engine.model.transformer import Transformer
from tests.numerics.reference_state import State
from tests.numerics.reference_words import Floats, softmax


class DenseCache:
    """K and V of the whole canvas in every layer; each forward overwrites those of its positions.

    K and V that no forward has written are NaN, and so is the output of a query that sees them.
    """

    def __init__(self, model: Transformer, length: int) -> None:
        config = model.config
        shape = (config.num_layers, length, config.num_kv_heads, config.head_dim)
        self.k, self.v = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
        self.model = model
        self.block_length = config.block_length

    def forward(self, embedded: Tensor, positions: list[int]) -> Tensor:
        """Write K and V of the positions, and return their hidden states."""

        @over_heads
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.k[layer, positions], self.v[layer, positions] = k, v
            out = torch.empty_like(q)
            for end in sorted({self.sees_until(i) for i in positions}):
                rows = [row for row, i in enumerate(positions) if self.sees_until(i) == end]
                seen = (q[rows], self.k[layer, :end], self.v[layer, :end])
                query, key, value = (x.transpose(0, 1)[None] for x in seen)
                mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
                out[rows] = mixed[0].transpose(0, 1)
            return out

        with torch.no_grad():
            return self.model(embedded, torch.tensor(positions), attend)

    def sees_until(self, position: int) -> int:
        """The end of what a query sees: the whole canvas, or its own block and all before it."""
        if self.block_length is None:
            return self.k.shape[1]
        return (position // self.block_length + 1) * self.block_length

    def logits(
        self, hidden: Tensor, without_prompt: Tensor | None = None, guidance: float = 0.0
    ) -> list[Floats]:
        """float32, one row per hidden state; -inf at the mask token. With `guidance`, guided by the
        logits of the hidden states that a canvas of masks for a prompt has there (LLaDA)."""
        with torch.no_grad():
            logits = self.model.logits(hidden).numpy().copy()
            if without_prompt is not None:
                unconditional = self.model.logits(without_prompt).numpy()
                scale = np.float32(guidance + 1)
                logits = unconditional + scale * (logits - unconditional)
        assert not np.isnan(logits).any(), "a query saw K and V that no forward has written"
        logits[:, self.model.config.mask_token_id] = -np.inf
        return list(logits)


def embed(
    model: Transformer, state: State, positions: list[int], soft: dict[str, Any] | None
) -> Tensor:
    """The input embeddings. With soft iteration (dInfer, arXiv 2510.08666), a masked position also
    gets the weighted mean embedding of what the forward before predicted there or, over the whole
    canvas, of what the last forward over it predicted."""
    table = model.embed.weight.detach()
    embedded = table[[state.canvas[i] for i in positions]].clone()
    if soft is not None and soft["scope"] == "canvas":
        for row, i in enumerate(positions):
            if state.canvas[i] == state.mask and i in state.soft:
                embedded[row] += state.soft[i]
    elif soft is not None:
        masked = state.masked()
        for row, i in enumerate(positions):
            if i in masked and i in state.previous_logits:
                mean = _mean_embedding(table, state.previous_logits[i], soft)
                embedded[row] += _weight(soft, state.num_decoding_iterations) * mean
    return embedded


def soften(
    model: Transformer,
    dense: DenseCache,
    state: State,
    positions: list[int],
    hidden: Tensor,
    soft: dict[str, Any],
) -> None:
    """Give every masked position that a forward computed its soft embedding for the forwards to
    come, with the weight of the next one."""
    table = model.embed.weight.detach()
    masked = [i for i in positions if state.canvas[i] == state.mask]
    rows = [positions.index(i - state.is_shifted) for i in masked]
    weight = _weight(soft, state.num_decoding_iterations + 1)
    for i, logits in zip(masked, dense.logits(hidden[rows]), strict=True):
        state.soft[i] = weight * _mean_embedding(table, logits, soft)


def _weight(soft: dict[str, Any], iteration: int) -> float:
    return min(soft["weight_start"] + soft["weight_growth"] * iteration, soft["weight_max"])


def _mean_embedding(table: Tensor, logits: Floats, soft: dict[str, Any]) -> Tensor:
    """sum p_v E[v] over the top_k likeliest words or all; p = softmax(logits / temperature)."""
    words = sorted(range(len(logits)), key=lambda word: (-logits[word], word))[: soft["top_k"]]
    probabilities = softmax(logits[words].astype(np.float64) / soft["temperature"])
    return (torch.from_numpy(probabilities) @ table[words].double()).float()
