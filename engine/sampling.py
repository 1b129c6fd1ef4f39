"""From which words is a token drawn, and of which distribution is its confidence?

    plain      drawn from softmax(z / T), confidence from softmax(z): no filter, or one that changes
               nothing
    filtered   both from the logits z / T (at temperature 0: z) without the words that top_k and
               top_p drop
    drawn      drawn from these words; confidence from softmax(z)

The host knows it of every sequence, so a batch in which all are plain pays nothing.

Shape letters: B sequences.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from torch import Tensor

from engine.model.authors import AuthorsRules
from engine.request import Request


class View(IntEnum):
    """What the logits of a sequence are seen through."""

    PLAIN = 0
    FILTERED = 1
    DRAWN = 2


class Views(NamedTuple):
    """What the host knows of a batch in which not all sequences are plain. Launches depend on
    it."""

    any_filter: bool
    """Whether any sequence has top_k or top_p; else only temperatures change the logits."""
    any_drawn: bool


@dataclass(frozen=True, slots=True)
class HostFilters:
    """The filters of a batch on the host."""

    view_B: np.ndarray
    """int64: the sequence's View."""
    top_k_B: np.ndarray
    """int64; 0: all words."""
    top_p_B: np.ndarray
    """float64; 1: all words."""

    @property
    def views(self) -> Views:
        has_filter = np.count_nonzero(self.top_k_B) or np.count_nonzero(self.top_p_B < 1)
        return Views(bool(has_filter), bool(np.count_nonzero(self.view_B == View.DRAWN)))


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a batch on the device."""

    views: Views
    top_p_first: bool
    """Whether top_k looks only at what top_p has left, not the other way round; the same in every
    batch of an engine."""
    view_B: Tensor
    """int32"""
    top_k_B: Tensor
    """int32"""
    top_p_B: Tensor
    """float32"""


def as_authors(request: Request, rules: AuthorsRules) -> Request:
    """The request with the rules of the model's authors for what it leaves open."""
    if request.temperature == 0 and not rules.filters_greedy:
        request = replace(request, top_k=None, top_p=None)
    return replace(request, confidence=request.confidence or rules.confidence)


def filters_of(request: Request) -> tuple[View, int, float]:
    """The request's view, top_k and top_p, as in HostFilters."""
    top_k, top_p = request.top_k or 0, 1.0 if request.top_p is None else request.top_p
    is_filter, is_sampled = top_k > 0 or top_p < 1, request.temperature > 0
    if request.confidence == "filtered" and (is_filter or request.temperature not in (0, 1)):
        return View.FILTERED, top_k, top_p
    if is_filter and is_sampled:
        return View.DRAWN, top_k, top_p
    return View.PLAIN, 0, 1.0
