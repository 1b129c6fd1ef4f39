"""Spans for a model with shifted logits, where a position's logits are computed at the position
before it.

Shape letters as in engine/sequences.py.
"""

import numpy as np

from engine.cache.base import Spans
from engine.sequences import Sequences


def with_sources(spans: Spans, s: Sequences) -> Spans:
    """Extend spans for a model with shifted logits, where the logits of a position are computed at
    the position before it: that one must be in the span as well. (Where a span leaves out cached
    positions, Needs keeps these ones.)"""
    source_B = s.block_start + s.is_asked_BL.argmax(axis=1) - 1
    extends_B = s.is_asked_BL.any(axis=1) & spans.is_decoding
    start_B = np.where(extends_B, np.minimum(spans.start, source_B), spans.start)
    return spans._replace(start=start_B)


def without_opened_blocks(spans: Spans, s: Sequences) -> Spans:
    """Cut the spans of opening forwards before the block that they open, for a block-causal model
    with shifted logits: there the first position's logits come from the last token of the finished
    block. With nothing else to commit, the block itself need not be computed."""
    end_B = np.where(s.opens, np.minimum(spans.end, s.attn_block_start), spans.end)
    return spans._replace(end=end_B)
