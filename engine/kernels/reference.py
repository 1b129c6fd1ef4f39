"""Attention over KV-cache pages in plain torch: the definition of the operation, and the CPU path.

A run is a series of adjacent query tokens that attend to the same context: all query tokens of a
sequence or, under block-causal attention, those of one attention block. Nothing here knows about
sequences or masks.

Shape letters: Q query tokens of all sequences, packed; R runs; N pages, P positions of a page; T
pages of the longest context; C context of one run; H query heads, K key/value heads, G query heads
of a key/value head, E head size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Run = tuple[int, int, int, int]
"""(query start, query end, first slot, context length): query tokens of one sequence that attend to
the same context, whose pages are contiguous from the first slot on."""


@dataclass(frozen=True, slots=True)
class HostRuns:
    """The runs of a forward on the host, int64. Iterating gives each Run."""

    query_starts: np.ndarray
    """[R + 1]"""
    first_slot_R: np.ndarray
    context_lens_R: np.ndarray

    def __iter__(self) -> Iterator[Run]:
        starts, slots, lens = (
            x.tolist() for x in (self.query_starts, self.first_slot_R, self.context_lens_R)
        )
        return zip(starts[:-1], starts[1:], slots, lens, strict=True)

    @property
    def longest_context(self) -> int:
        return int(np.maximum.reduce(self.context_lens_R))


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedLayout:
    """Which packed query tokens form each run, and which pages hold its context."""

    query_starts: Tensor
    """int32 [R + 1]; run r has the query tokens query_starts[r] .. query_starts[r + 1] - 1."""
    first_slot_R: Tensor
    """int32; slot of each run's canvas position 0."""
    context_lens_R: Tensor
    """int32; the query tokens attend to the canvas positions 0 .. context length - 1."""
    longest_context: int
    """No context is longer."""
    host_runs: HostRuns | None
    """The same on the host; None in a forward of fixed shape, whose runs only the device knows.
    Such a layout may have runs of no query token, and query tokens of no run behind the last."""
    scattered_RT: Tensor | None = None
    """int32; the pages of each run's context in canvas order, where they are not contiguous."""

    def page_table(self, page_size: int) -> Tensor:
        """The pages of each run's context in canvas order, int32 [R, T]. What stands behind a
        context's last page is not to be read."""
        if self.scattered_RT is not None:
            return self.scattered_RT
        its = self if self.host_runs is None else self.host_runs
        num_pages = -(-its.longest_context // page_size)
        offsets_T = torch.arange(num_pages, dtype=torch.int32, device=self.first_slot_R.device)
        return (self.first_slot_R // page_size)[:, None] + offsets_T


def paged_attention_reference(
    q_QHE: Tensor, k_NPKE: Tensor, v_NPKE: Tensor, layout: PagedLayout
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v for every query token over the whole context of its run: o_QHE.

    This defines the operation, for any page table and any grouping of heads. It computes in float32
    on a gathered copy of the context.
    """
    out_QHE = torch.empty_like(q_QHE)
    starts, page_size = layout.query_starts.tolist(), k_NPKE.shape[1]
    table_RT = layout.page_table(page_size)
    group = q_QHE.shape[1] // k_NPKE.shape[2]
    for r, context_len in enumerate(layout.context_lens_R.tolist()):
        pages = table_RT[r, : -(-context_len // page_size)].long()
        k_CHE, v_CHE = (
            x[pages].flatten(0, 1)[:context_len].float().repeat_interleave(group, dim=1)
            for x in (k_NPKE, v_NPKE)
        )
        q = q_QHE[starts[r] : starts[r + 1]].float() * q_QHE.shape[2] ** -0.5
        weights_HQC = torch.einsum("qhe,che->hqc", q, k_CHE).softmax(dim=-1)
        out = torch.einsum("hqc,che->qhe", weights_HQC, v_CHE)
        out_QHE[starts[r] : starts[r + 1]] = out.to(q_QHE.dtype)
    return out_QHE


def paged_attention_views(
    q_QHE: Tensor, k_NPKE: Tensor, v_NPKE: Tensor, layout: PagedLayout
) -> Tensor:
    """The same for contexts in contiguous pages: one fused call per run, on views of the pages.

    On CPU this is the fastest way for mixed lengths: copying the contexts into a padded batch costs
    more than all of the attention. Where the host does not know the runs, there is no other.
    """
    if layout.host_runs is None:
        return paged_attention_gathered(q_QHE, k_NPKE, v_NPKE, layout)
    out_QHE = torch.empty_like(q_QHE)
    k_SKE, v_SKE = k_NPKE.flatten(0, 1), v_NPKE.flatten(0, 1)
    grouped = q_QHE.shape[1] != k_NPKE.shape[2]
    for start, end, slot, context_len in layout.host_runs:
        q, k, v = (
            x.transpose(0, 1)[None]
            for x in (
                q_QHE[start:end],
                k_SKE[slot : slot + context_len],
                v_SKE[slot : slot + context_len],
            )
        )
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
        out_QHE[start:end] = out[0].transpose(0, 1)
    return out_QHE


def paged_attention_gathered(
    q_QHE: Tensor, k_NPKE: Tensor, v_NPKE: Tensor, layout: PagedLayout
) -> Tensor:
    """The same from the device's tensors alone: no shape and no launch depends on their values, so
    the operation can be captured in a graph. Query tokens of no run come out as zeros.

    Gathers a context of the longest length for every query token: for small batches and tests.
    """
    num_pages, page_size = k_NPKE.shape[:2]
    token_Q = torch.arange(q_QHE.shape[0], dtype=torch.int32, device=q_QHE.device)
    run_Q = torch.searchsorted(layout.query_starts[1:], token_Q, right=True)
    has_run_Q = run_Q < layout.context_lens_R.shape[0]
    run_Q = run_Q.clamp(max=layout.context_lens_R.shape[0] - 1)
    # The table may name pages behind a context, and even pages that there are not.
    table_RT = layout.page_table(page_size).long().clamp(max=num_pages - 1)
    offsets_C = torch.arange(table_RT.shape[1] * page_size, device=q_QHE.device)
    is_seen_QC = (offsets_C < layout.context_lens_R[run_Q][:, None]) & has_run_Q[:, None]
    k_QCKE, v_QCKE = (
        x[table_RT].flatten(1, 2)[run_Q].float().masked_fill(~is_seen_QC[..., None, None], 0)
        for x in (k_NPKE, v_NPKE)
    )
    q_QKGE = q_QHE.float().unflatten(1, (k_NPKE.shape[2], -1)) * q_QHE.shape[2] ** -0.5
    scores_QKGC = torch.einsum("qkge,qcke->qkgc", q_QKGE, k_QCKE)
    scores_QKGC = scores_QKGC.masked_fill(~is_seen_QC[:, None, None], -torch.inf)
    weights_QKGC = scores_QKGC.softmax(dim=-1).masked_fill(~has_run_Q[:, None, None, None], 0)
    out_QKGE = torch.einsum("qkgc,qcke->qkge", weights_QKGC, v_QCKE)
    return out_QKGE.flatten(1, 2).to(q_QHE.dtype)
