"""Ragged batches with top_k, top_p and temperature, and the definitions of these."""

import math

import torch
from torch import Tensor

from engine.decoding.base import DecodingStrategy
from engine.decoding.filters import DROPPED
from engine.decoding.noise import Noise
from engine.decoding.positions import AskedPositions
from engine.decoding.reduction import EntropyParts, Reduced, TorchReduction
from engine.model.authors import Confidence
from engine.request import Request
from engine.sampling import Filters, HostFilters, filters_of
from tests.engine.ragged import ragged

Settings = tuple[float, int | None, float | None, Confidence]
"""Temperature, top_k, top_p and confidence of a sequence."""
MIXED: list[Settings] = [
    (0.7, 3, None, "filtered"),
    (0.0, None, None, "filtered"),
    (0.7, None, 0.6, "raw"),
    (1.3, 4, 0.8, "filtered"),
    (0.9, None, None, "raw"),
    (0.6, None, None, "filtered"),
    (0.0, 2, 0.7, "filtered"),
    (1.0, 1, None, "filtered"),
    (2.0, 100, 1.0, "filtered"),
    (2.0, 5, 0.3, "raw"),
]


def request_of(settings: Settings) -> Request:
    temperature, top_k, top_p, confidence = settings
    return Request(
        request_id=0,
        prompt_ids=[1],
        max_new_tokens=1,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        confidence=confidence,
    )


def filtered_batch(
    settings: list[Settings],
    count: int = 9,
    top_p_first: bool = False,
    strategy: DecodingStrategy | None = None,
) -> tuple[AskedPositions, Tensor]:
    """`count` positions of each sequence, and their logits."""
    asked, logits_MV = ragged(
        [count] * len(settings), [its[0] for its in settings], strategy=strategy
    )
    return with_filters(asked, settings, top_p_first), logits_MV


def with_filters(
    asked: AskedPositions, settings: list[Settings], top_p_first: bool = False
) -> AskedPositions:
    view, top_k, top_p = zip(*(filters_of(request_of(its)) for its in settings), strict=True)
    tensors = torch.tensor(view), torch.tensor(top_k), torch.tensor(top_p)
    host = HostFilters(*(tensor.numpy() for tensor in tensors))
    filters = Filters(
        views=host.views,
        top_p_first=top_p_first,
        view_B=tensors[0].int(),
        top_k_B=tensors[1].int(),
        top_p_B=tensors[2].float(),
    )
    return asked._replace(filters=filters if any(view) else None)


def kept_words(
    scaled: list[float], top_k: int | None, top_p: float | None, top_p_first: bool
) -> set[int]:
    """By the definitions: top_k drops what is less than the k-th largest; top_p keeps the shortest
    descending prefix whose mass exceeds p. Of equal words the lower comes first."""
    order = sorted(range(len(scaled)), key=lambda word: (-scaled[word], word))
    least = scaled[order[min(top_k or len(order), len(order)) - 1]]
    of_top_k = [word for word in order if scaled[word] >= least]
    if top_p is None or top_p == 1:
        return set(of_top_k)
    candidates = order if top_p_first else of_top_k
    weights = [math.exp(scaled[word] - scaled[order[0]]) for word in candidates]
    mass, kept = 0.0, set[int]()
    for word, weight in zip(candidates, weights, strict=True):
        if mass > float(torch.tensor(top_p)) * sum(weights):
            break
        kept.add(word)
        mass += weight
    return kept & set(of_top_k)


def plain_view(
    logits: list[float], settings: Settings, top_p_first: bool
) -> tuple[list[float], set[int]]:
    """The logits that the position's confidences follow from, and the words it is drawn from."""
    temperature, top_k, top_p, confidence = settings
    scaled = torch.tensor(logits) / (temperature or 1.0)
    kept = kept_words(scaled.tolist(), top_k, top_p, top_p_first)
    if confidence == "raw":
        return logits, kept if temperature else set(range(len(logits)))
    return [x if word in kept else DROPPED for word, x in enumerate(scaled.tolist())], kept


class ByDtype(TorchReduction):
    """Sums up bfloat16 logits in another way than float32 ones, as a kernel may, but by more than
    rounding: torch rounds a sigmoid on a CPU by its place in the tensor."""

    def best(self, local_MU: Tensor, noise: Noise | None, words: range) -> Reduced:
        found = super().best(local_MU.float(), noise, words)
        if local_MU.dtype == torch.float32:
            return found
        return found._replace(others_M=found.others_M + 0.1)

    def entropy(self, local_MU: Tensor) -> EntropyParts:
        found = super().entropy(local_MU.float())
        if local_MU.dtype == torch.float32:
            return found
        return found._replace(others_M=found.others_M + 0.1)
