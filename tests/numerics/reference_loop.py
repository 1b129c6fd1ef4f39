"""Diffusion decoding as the papers write it: one sequence, plain loops, no batch, pages or packing.

Written from the algorithms (LLaDA, arXiv 2502.09992; Fast-dLLM, arXiv 2505.22618) and the words of
the output contract, not from the engine; of the engine it uses the transformer alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.transformer import Transformer
from engine.request import Request


@dataclass
class Outcome:
    token_ids: list[int]
    finish_reason: str
    num_iterations: int
    num_refreshes: int
    num_query_tokens: int
    mean_confidence: float | None


class DenseCache:
    """K and V of the whole canvas, one tensor a layer, overwritten where a forward computed
    them."""

    def __init__(self, model: Transformer, length: int) -> None:
        config = model.config
        shape = (config.num_layers, length, config.num_kv_heads, config.head_dim)
        self.k, self.v = torch.zeros(shape), torch.zeros(shape)
        self.model = model

    def logits(self, canvas: list[int], start: int, end: int) -> Tensor:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.k[layer, start:end], self.v[layer, start:end] = k, v
            heads = [x.transpose(0, 1)[None] for x in (q, self.k[layer], self.v[layer])]
            return F.scaled_dot_product_attention(*heads, enable_gqa=True)[0].transpose(0, 1)

        positions = torch.arange(start, end)
        with torch.no_grad():
            embedded = self.model.embed(torch.tensor(canvas[start:end]))
            hidden = self.model(embedded, positions, attend)
            return self.model.logits(hidden)


def decode(
    model: Transformer,
    request: Request,
    *,
    cache: str,
    decoder: str,
    block_length: int,
    threshold: float = 0.9,
    iterations_per_block: int | None = None,
    stop_at_eos: bool = True,
) -> Outcome:
    mask, eos = model.config.mask_token_id, model.config.eos_token_id
    prompt_len = len(request.prompt_ids)
    canvas = request.prompt_ids + [mask] * request.max_new_tokens
    confidences: dict[int, float] = {}
    dense = DenseCache(model, len(canvas))
    num_iterations = num_refreshes = num_query_tokens = 0
    for start in range(prompt_len, len(canvas), block_length):
        end = min(start + block_length, len(canvas))
        for t in range(end - start):
            masked = [i for i in range(start, end) if canvas[i] == mask]
            if not masked or (stop_at_eos and _ended(canvas, prompt_len, mask, eos)):
                break
            whole = cache == "none" or t == 0
            span = (0, len(canvas)) if whole else (start, end)
            logits = dense.logits(canvas, *span)
            proposals = {
                i: _propose(logits[i - span[0]], mask, request, num_iterations, i) for i in masked
            }
            ranked = sorted(masked, key=lambda i: (proposals[i][2], i))
            if decoder == "threshold":
                chosen = {i for i in masked if proposals[i][1] >= threshold} | {ranked[0]}
            else:
                num_iterations_of_block = iterations_per_block or end - start
                share, rest = divmod(end - start, num_iterations_of_block)
                chosen = set(ranked[: share + (t < rest)])
            for i in chosen:
                canvas[i], confidences[i], _ = proposals[i]
            num_iterations += 1
            num_refreshes += whole
            num_query_tokens += span[1] - span[0]
    generated = canvas[prompt_len:]
    ended = eos in generated
    token_ids = generated[: generated.index(eos)] if ended else generated
    assert mask not in token_ids
    sure = [confidences[prompt_len + i] for i in range(len(token_ids))]
    return Outcome(
        token_ids,
        "eos" if ended else "length",
        num_iterations,
        num_refreshes,
        num_query_tokens,
        float(np.mean(sure)) if sure else None,
    )


def _ended(canvas: list[int], prompt_len: int, mask: int, eos: int) -> bool:
    """An EOS is committed and nothing before it is masked."""
    generated = canvas[prompt_len:]
    return eos in generated and mask not in generated[: generated.index(eos)]


def _propose(
    logits: Tensor, mask: int, request: Request, iteration: int, position: int
) -> tuple[int, float, float]:
    """(token, its probability, the probability of all other tokens together), in float64."""
    scores = logits.numpy().copy()
    scores[mask] = -np.inf
    probabilities = np.exp(scores.astype(np.float64) - scores.max())
    probabilities /= probabilities.sum()
    if request.temperature > 0:
        noise = _gumbel(request.seed, iteration, position, len(scores))
        scores = scores + np.float32(request.temperature) * noise
    token = int(scores.argmax())
    return token, float(probabilities[token]), float(np.delete(probabilities, token).sum())


def _gumbel(seed: int, iteration: int, position: int, num_words: int) -> np.ndarray:
    """-log(-log(u)), u a hash of (seed, iteration, position, word), on unsigned integers."""
    with np.errstate(over="ignore"):
        key = _splitmix(np.array([seed], dtype=np.uint64))
        key = _splitmix(key ^ np.uint64(iteration))
        key = _splitmix(key ^ np.uint64(position))
        bits = _splitmix(key ^ np.arange(num_words, dtype=np.uint64)) >> np.uint64(12)
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**52
    return (-np.log(-np.log(uniform))).astype(np.float32)


def _splitmix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
