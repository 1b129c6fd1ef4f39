"""Draws the tokens of an autoregressive model: each row with its own temperature, filters and seed.

transformers draws from one generator for the whole batch, so a token would depend on the row's
neighbours. Here the noise is a hash of (seed, position, word), as in engine/decoding/noise.py: the
likeliest word of logits / temperature + Gumbel noise is a draw from softmax(logits / temperature).

Shape letters: B rows of the batch that get a token; V words.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
    ContinuousBatchingTopKLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engine.decoding.noise import gumbel
from engine.request import Request

GREEDY = 0
"""The key of a row that draws without noise."""


def processors(vocab_size: int) -> ContinuousBatchingLogitsProcessorList:
    """From the logits of a batch to scores whose maximum is the row's token. The settings of a row
    are the keywords of its request (`settings_of`)."""
    steps = [
        Temperature(),
        ContinuousBatchingTopKLogitsWarper(TopKLogitsWarper(top_k=vocab_size)),
        ContinuousBatchingTopPLogitsWarper(TopPLogitsWarper(top_p=1.0)),
        Noise(),
    ]
    listed = ContinuousBatchingLogitsProcessorList(LogitsProcessorList(steps))
    listed.tensors_required = len(steps)  # one row of arguments for each
    return listed


def settings_of(request: Request) -> dict[str, Any]:
    """The request's settings as the processors take them."""
    if request.temperature == 0:
        return {}
    settings: dict[str, Any] = {"temperature": float(request.temperature), "seed": request.seed}
    if request.top_k is not None:
        settings["top_k"] = request.top_k
    if request.top_p is not None:
        settings["top_p"] = float(request.top_p)
    return settings


class Temperature(ContinuousBatchingLogitsProcessor):
    """Divides the logits by the row's temperature; at 0 leaves them as they are."""

    supported_kwargs = {"temperature": float}  # noqa: RUF012 - transformers' own form
    ignored_kwargs = ()

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> Tensor:
        its = [one.state.logit_processor_kwargs for one in requests_with_new_token]
        temperatures = [settings.get("temperature", 0.0) for settings in its]
        return torch.tensor(temperatures, dtype=torch.float32).view(torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        temperature_B = tensor_arg[: scores.size(0)].view(torch.float32)
        return scores / torch.where(temperature_B > 0, temperature_B, 1.0)[:, None]


class Noise(ContinuousBatchingLogitsProcessor):
    """Adds Gumbel noise to the logits of rows with a seed."""

    supported_kwargs = {"seed": int}  # noqa: RUF012
    ignored_kwargs = ()

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.fill_(GREEDY)

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> Tensor:
        states = [one.state for one in requests_with_new_token]
        keys = [
            # The position of the token that is drawn: the tokens before it are in the cache.
            _key(its.logit_processor_kwargs.get("seed"), its.position_offset)
            for its in states
        ]
        return torch.tensor(keys, dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        key_B = tensor_arg[: scores.size(0)]
        noise_BV = gumbel(key_B.long(), range(scores.size(1)))
        return scores + torch.where(key_B == GREEDY, 0.0, 1.0)[:, None] * noise_BV


def _key(seed: int | None, position: int) -> int:
    """A hash of both in 31 bits, never GREEDY; GREEDY without a seed."""
    if seed is None:
        return GREEDY
    digest = blake2b(f"{seed}/{position}".encode(), digest_size=4).digest()
    return max(int.from_bytes(digest) >> 1, GREEDY + 1)
