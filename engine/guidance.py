"""Classifier-free guidance (LLaDA, arXiv 2502.09992): pushes the logits away from those without the
prompt.

A sequence with guidance has a twin: a second canvas, with pages of its own, whose prompt is masks
and whose generation region holds the same tokens. Each forward of the sequence computes the same
positions of both canvases, so a cache policy decides for both at once, and the strategy sees only
the guided logits

    z = z_un + (w + 1) (z_c - z_un)

with z_c from the canvas, z_un from its twin and w = Request.guidance. (Dream's evaluation writes
z_un + w (z_c - z_un): its w is w + 1 here.)

Shape letters: G requested positions of sequences with guidance; D hidden size; U this rank's words.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.request import Request

WIDE_FIELDS_G = ("index_G", "logit_index_G", "slots_G")
"""Fields of both of the following that are int64."""


class HostTwins(NamedTuple):
    """The last G requested positions in the twins of their sequences. The first three mean
    what they mean in HostBatch (engine/batch.py)."""

    index_G: np.ndarray
    logit_index_G: np.ndarray
    slots_G: np.ndarray
    weight_G: np.ndarray
    """float64: the sequence's guidance, plus 1."""


class Twins(NamedTuple):
    """The last G requested positions in the twins of their sequences, on the device."""

    index_G: Tensor
    logit_index_G: Tensor
    slots_G: Tensor
    weight_G: Tensor
    """float32."""

    @staticmethod
    def of(sent: Mapping[str, Tensor]) -> "Twins":
        """`sent`: by the names of the fields; the bits of the weights."""
        index_G, logit_index_G, slots_G = (sent[name] for name in WIDE_FIELDS_G)
        return Twins(index_G, logit_index_G, slots_G, sent["weight_G"].view(torch.float32))


class Unconditional(NamedTuple):
    """What guides some requested positions."""

    hidden_GD: Tensor
    """Hidden states of the twins, from which their logits follow."""
    weight_G: Tensor
    """float32: w + 1."""


def num_canvases(request: Request) -> int:
    """How many canvases the request takes: its own and, with guidance, a twin."""
    return 2 if request.guidance > 0 else 1


def guided(conditional_GU: Tensor, unconditional_GU: Tensor, weight_G: Tensor) -> Tensor:
    """The guided logits, float32 [G, U]. `conditional_GU` may be overwritten. No logit may be
    infinite: words that are never predicted are ruled out afterwards."""
    conditional_GU, unconditional_GU = conditional_GU.float(), unconditional_GU.float()
    apart_GU = conditional_GU.sub_(unconditional_GU)
    return apart_GU.mul_(weight_G[:, None]).add_(unconditional_GU)


def bytes_per_guided_logit(bytes_per_logit: int, own: int) -> int:
    """Peak memory per guided logit, in bytes. `bytes_per_logit`: that of a logit without guidance,
    which has `own` bytes itself. The guided one has 4, and is made from two in float32."""
    return max(bytes_per_logit - own + 4, 2 * own + 2 * 4)
