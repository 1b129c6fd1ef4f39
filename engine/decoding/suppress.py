"""Holds EOS back, so that a model does not end its generations early: `decoding.suppress_eos`.

The forms are those of LLaDA's evaluation (arXiv 2502.09992, appendix B.4): two that the appendix
describes, and `softmax`, which is what the second is in the authors' `generate` at temperature 0.
There, minus infinity is assigned to logits that the softmax of the confidences has yet to read.

Shape letters as in engine/decoding/positions.py.
"""

from typing import NamedTuple

import torch

from engine.decoding.base import DecodingStrategy
from engine.decoding.positions import LAST, Proposals
from engine.errors import UserError
from engine.model.config import ModelConfig

FORMS = ("logits", "softmax", "confidence")


class HeldBack(NamedTuple):
    """What is done to which words."""

    forbidden: tuple[int, ...]
    """Their logits are -inf before anything is computed from them."""
    uncounted: tuple[int, ...] = ()
    """The confidences of other words are computed as if these did not exist."""
    last: tuple[int, ...] = ()
    """A position that proposes one of these commits only when nothing else of its block is left."""


def held_back(decoding: DecodingStrategy, model: ModelConfig) -> HeldBack:
    """The mask token, which is never predicted, and what decoding.suppress_eos adds."""
    mask, ends = (model.mask_token_id,), model.eos_token_ids
    if decoding.suppress_eos == "logits":
        return HeldBack(mask + ends[:1])
    if decoding.suppress_eos == "softmax":
        return HeldBack(mask, uncounted=ends, last=ends)
    if decoding.suppress_eos == "confidence":
        return HeldBack(mask, last=ends)
    return HeldBack(mask)


def put_last(words: tuple[int, ...], proposals: Proposals) -> Proposals:
    """Put the positions that propose one of `words` behind all others. A confidence of NaN stays,
    so that a position whose logits are not finite still shows."""
    is_last_M = torch.zeros_like(proposals.token_M, dtype=torch.bool)
    for word in words:
        is_last_M = is_last_M | (proposals.token_M == word)
    is_last_M = is_last_M & ~proposals.confidence_M.isnan()
    return proposals._replace(
        log_odds_M=proposals.log_odds_M.masked_fill(is_last_M, LAST),
        confidence_M=proposals.confidence_M.masked_fill(is_last_M, -torch.inf),
        score_M=proposals.score_M.masked_fill(is_last_M, LAST),
    )


def check_form(decoding: DecodingStrategy) -> None:
    """
    Raises:
        UserError: there is no such form.
    """
    if decoding.suppress_eos not in (None, *FORMS):
        raise UserError(
            f"decoding.suppress_eos={decoding.suppress_eos!r}: give one of {', '.join(FORMS)}, or "
            "null"
        )
