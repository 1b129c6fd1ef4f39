"""Attention over pages: the CPU path equals the reference, and the reference a plain softmax."""

import numpy as np
import pytest
import torch

from engine.kernels.reference import (
    HostRuns,
    PagedLayout,
    paged_attention_reference,
    paged_attention_views,
)

SHAPES = [
    pytest.param([1], [1], 4, 4, 2, 1, id="one-query-one-key"),
    pytest.param([5, 1, 7], [9, 33, 7], 4, 4, 6, 4, id="ragged"),
    pytest.param([32, 3, 17, 1], [63, 3, 200, 17], 6, 2, 10, 16, id="grouped"),
    pytest.param([2, 2], [16, 32], 8, 1, 16, 16, id="one-kv-head-full-pages"),
]


def layout_of(queries: list[int], contexts: list[int], page_size: int) -> tuple[PagedLayout, int]:
    """A layout whose contexts have one unused page between them, and the number of pages."""
    num_pages = [-(-context // page_size) for context in contexts]
    first_pages = [sum(num_pages[:b]) + b + 1 for b in range(len(contexts))]
    starts = torch.tensor([0, *queries]).cumsum(0).int()
    slots = torch.tensor(first_pages, dtype=torch.int32) * page_size
    layout = PagedLayout(
        query_starts=starts,
        first_slot_R=slots,
        context_lens_R=torch.tensor(contexts, dtype=torch.int32),
        longest_context=max(contexts),
        host_runs=HostRuns(starts.numpy(), slots.numpy(), np.array(contexts)),
    )
    return layout, sum(num_pages) + len(contexts) + 1


@pytest.mark.parametrize(
    ("queries", "contexts", "heads", "kv_heads", "head_dim", "page_size"), SHAPES
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["fp32", "bf16"]
)
def test_views_equal_reference(
    queries: list[int],
    contexts: list[int],
    heads: int,
    kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    layout, num_pages = layout_of(queries, contexts, page_size)
    q = torch.randn(sum(queries), heads, head_dim, dtype=dtype)
    # All other slots are NaN, so that reading one slot too many poisons the output.
    pages = torch.full((2, num_pages, page_size, kv_heads, head_dim), torch.nan, dtype=dtype)
    for _, _, slot, context in layout.host_runs or []:
        pages.flatten(1, 2)[:, slot : slot + context] = torch.randn(2, context, kv_heads, head_dim)
    expected = paged_attention_reference(q, *pages, layout)
    assert expected.isfinite().all()
    got = paged_attention_views(q, *pages, layout)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("queries", "contexts", "heads", "kv_heads", "head_dim", "page_size"), SHAPES
)
def test_gathered_equals_reference_and_ignores_padding(
    queries: list[int],
    contexts: list[int],
    heads: int,
    kv_heads: int,
    head_dim: int,
    page_size: int,
) -> None:
    """The layout of a fixed shape: three runs of no query token, whose values are never read, five
    query tokens of no run, and a table that reaches behind the last page."""
    torch.manual_seed(0)
    layout, num_pages = layout_of(queries, contexts, page_size)
    Q = sum(queries)
    q = torch.randn(Q + 5, heads, head_dim)
    q[Q:] = torch.nan
    pages = torch.full((2, num_pages, page_size, kv_heads, head_dim), torch.nan)
    for _, _, slot, context in layout.host_runs or []:
        pages.flatten(1, 2)[:, slot : slot + context] = torch.randn(2, context, kv_heads, head_dim)
    padded = PagedLayout(
        query_starts=torch.cat((layout.query_starts, torch.tensor([Q] * 3))).int(),
        first_slot_R=torch.cat((layout.first_slot_R, torch.tensor([0] * 3))).int(),
        context_lens_R=torch.cat((layout.context_lens_R, torch.tensor([0] * 3))).int(),
        longest_context=layout.longest_context + 7 * page_size,
        host_runs=None,
    )
    expected = paged_attention_reference(q[:Q], *pages, layout)
    got = paged_attention_views(q, *pages, padded)
    torch.testing.assert_close(got[:Q], expected, rtol=1e-5, atol=1e-5)
    assert (got[Q:] == 0).all()


def test_reference_follows_a_scattered_page_table() -> None:
    """The pages of a context need not be contiguous."""
    torch.manual_seed(1)
    k, v = torch.randn(2, 6, 4, 1, 8)
    q = torch.randn(3, 1, 8)
    layout = PagedLayout(
        query_starts=torch.tensor([0, 3], dtype=torch.int32),
        first_slot_R=torch.tensor([20], dtype=torch.int32),
        context_lens_R=torch.tensor([10], dtype=torch.int32),
        longest_context=10,
        scattered_RT=torch.tensor([[5, 0, 3]], dtype=torch.int32),
        host_runs=None,
    )
    keys, values = (torch.cat((x[5], x[0], x[3][:2]))[:, 0] for x in (k, v))
    expected = (q[:, 0] @ keys.T / 8**0.5).softmax(-1) @ values
    got = paged_attention_reference(q, k, v, layout)[:, 0]
    torch.testing.assert_close(got, expected)
