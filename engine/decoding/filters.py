"""top_k, top_p and temperature as a view of the logits, on which every question of
engine/decoding/logits.py works (engine/sampling.py says who sees what).

A dropped word keeps a logit, DROPPED, so that a position with a single word left has finite log
odds. Whether a word is dropped depends on its position's logits alone, bit for bit: sorting rounds
nothing, and probabilities are summed as whole numbers. So ranks agree, and so do batches.

Shape letters as in engine/decoding/positions.py and logits.py; N words of a position from the
likeliest to the least likely.
"""

from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.decoding.logits import Logits
from engine.decoding.positions import AskedPositions
from engine.sampling import Filters, View

DROPPED = -(2.0**100)
UNIT = 2.0**40
"""The likeliest word's weight in sums of probabilities. 2**22 words of this weight are less than
2**63."""


VIEW_BYTES, SORT_BYTES = 16, 40
"""Per logit: for the copies of a view, and for the sorted words of all ranks, with what sorting
itself takes. Views were measured to take 16 more than the same strategy without, and sorting 32."""


def bytes_per_logit(filters: Filters | None, num_ranks: int) -> int:
    """What a batch with views takes at its peak per logit of a rank's words, on top of what the
    strategy takes without them."""
    if filters is None:
        return 0
    return most_bytes_per_logit(num_ranks) if filters.views.any_filter else VIEW_BYTES


def most_bytes_per_logit(num_ranks: int) -> int:
    """The same of a batch in which a sequence has top_k or top_p."""
    return VIEW_BYTES + SORT_BYTES * num_ranks


def seen(logits: Logits, asked: AskedPositions) -> Logits:
    """The logits as the sequences' filters let them be seen. `logits` stay as they are."""
    filters = asked.filters
    if filters is None:
        return logits
    assert logits.num_words < 2**22, "sums of probabilities must fit into 64 bits"
    view_M1 = asked.of_sequence(filters.view_B)[:, None]
    temperature_M1 = asked.of_sequence(asked.temperature_B)[:, None]
    is_scaled_M1 = (view_M1 != View.PLAIN) & (temperature_M1 > 0)
    local_MU = logits.local_MU.float()
    scaled_MU = local_MU / temperature_M1.where(is_scaled_M1, 1.0)
    drawn_MU = None
    if filters.views.any_filter:
        is_dropped_MU = _is_dropped(scaled_MU, logits, asked)
        scaled_MU.masked_fill_(is_dropped_MU, DROPPED)
        if filters.views.any_drawn:
            drawn_MU = local_MU.masked_fill(is_dropped_MU, DROPPED)
    is_filtered_M1 = view_M1 == View.FILTERED
    return replace(
        logits,
        local_MU=torch.where(is_filtered_M1, scaled_MU, local_MU),
        plain_MU=logits.local_MU if logits.local_MU.dtype != torch.float32 else None,
        is_plain_M=(view_M1 == View.PLAIN)[:, 0],
        drawn_MU=drawn_MU,
        is_drawn_M=(view_M1 == View.DRAWN)[:, 0] if drawn_MU is not None else None,
    )


def _is_dropped(scaled_MU: Tensor, logits: Logits, asked: AskedPositions) -> Tensor:
    """Which of this rank's words the filters drop, bool [M, U]. Sorts the logits of all ranks'
    words."""
    assert asked.filters is not None, "only a batch with filters drops words"
    filters, words = asked.filters, logits.words
    whole_MV = _whole(scaled_MU, logits)
    sorted_MN, word_MN = whole_MV.sort(dim=-1, descending=True, stable=True)
    top_k_M = asked.of_sequence(filters.top_k_B).long()
    last_M1 = torch.where(top_k_M > 0, top_k_M, logits.num_words).clamp(max=logits.num_words) - 1
    in_top_k_MN = sorted_MN >= sorted_MN.gather(1, last_M1[:, None])
    weight_MN = ((sorted_MN - sorted_MN[:, :1]).exp() * UNIT).long()
    if not filters.top_p_first:
        weight_MN *= in_top_k_MN
    del sorted_MN
    sum_MN = weight_MN.cumsum(dim=-1)
    top_p_M1 = asked.of_sequence(filters.top_p_B)[:, None]
    most_M1 = (top_p_M1.double() * sum_MN[:, -1:].double()).long()
    is_kept_MN = in_top_k_MN & (sum_MN.sub_(weight_MN) <= most_M1)
    del sum_MN, weight_MN
    is_kept_MV = torch.zeros_like(in_top_k_MN).scatter_(1, word_MN, is_kept_MN)
    # What is not finite stays, so that it shows.
    is_kept_MV |= whole_MV.isnan() | whole_MV.isposinf()
    is_kept_MV |= (asked.of_sequence(filters.view_B) == View.PLAIN)[:, None]
    return ~is_kept_MV[:, words.start : words.stop]


def _whole(local_MU: Tensor, logits: Logits) -> Tensor:
    """The logits of all ranks' words, [M, V]; one collective."""
    parallel, num_words = logits.parallel, logits.num_words
    if parallel.size == 1:
        return local_MU
    width = parallel.longest_share(num_words)
    all_RMU = parallel.gathered(F.pad(local_MU, (0, width - local_MU.shape[1])))
    starts = [rank * num_words // parallel.size for rank in range(parallel.size + 1)]
    lengths = [end - start for start, end in pairwise(starts)]
    return torch.cat([x[:, :n] for x, n in zip(all_RMU, lengths, strict=True)], dim=1)
