"""A row's bits are the same alone and in a batch, at any place in it, whatever its neighbours."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.kernels.attention import AttentionTile, Tiles, paged_attention, plan_tiles
from engine.kernels.experts import moe
from engine.kernels.head import Noise, reduce
from engine.kernels.linear import linear
from engine.kernels.norm import add_norm
from engine.kernels.qkv import norm_rotate_write
from engine.kernels.route import router_logits
from engine.kernels.tiles import Splits
from tests.kernels.mixtures import experts_of, router_of
from tests.kernels.places import BFLOAT16, INTERPRETER, Place
from tests.kernels.test_paged_attention import case


@dataclass(frozen=True)
class Sizes:
    """What is tested: small ones in the interpreter, those of published models on a GPU."""

    place: Place
    counts: tuple[int, ...]
    """Numbers of rows; the first ones, and as many last ones, are compared."""
    D: int
    linears: tuple[tuple[int, int], ...]
    """(N, K)"""
    mixtures: tuple[tuple[int, int, int, bool], ...]
    """(experts, width, chosen, sigmoid)"""
    heads: tuple[tuple[int, int, int], ...]
    contexts: tuple[int, ...]
    V: int


SMALL = Sizes(
    place=INTERPRETER, counts=(1, 3, 33, 70), D=48, linears=((20, 48), (97, 48)),
    mixtures=((16, 20, 3, True), (8, 32, 3, False)), heads=((8, 8, 16), (7, 1, 12)),
    contexts=(70, 9, 400, 64, 1, 2, 3, 4, 33), V=97,
)  # fmt: skip
PUBLISHED = Sizes(
    place=BFLOAT16, counts=(1, 7, 33, 64, 100, 512, 1000, 2048, 4096), D=2048,
    linears=((2048, 5120), (4096, 4096), (4096, 12288), (6144, 2048), (1000, 300)),
    mixtures=((64, 1024, 8, False), (256, 512, 8, True)), heads=((16, 16, 128), (28, 4, 128)),
    contexts=(1000, 200, 300, 64, 700, 16, 513, 1024, 800, 2200), V=157184,
)  # fmt: skip
everywhere = pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(SMALL, id="interpreter"),
        pytest.param(PUBLISHED, id="bfloat16", marks=pytest.mark.gpu),
    ],
)


def assert_same_bits(outputs: dict[int, Tensor]) -> None:
    """The outputs at every number of rows: the first row of each, and of those with a second half
    the first row of that, which is a copy."""
    expected = outputs[min(outputs)][0]
    different = [
        (count, row)
        for count, out in outputs.items()
        for row in {0, count // 2}
        if not torch.equal(out[row], expected)
    ]
    assert not different, f"(rows, row) whose bits differ: {different}"


def rows_of(x: Tensor, count: int) -> Tensor:
    """The first `count` rows, the first of which stands in the middle once more."""
    rows = x[:count].clone()
    rows[count // 2] = x[0]
    return rows


@everywhere
def test_linears(sizes: Sizes) -> None:
    for N, K in sizes.linears:
        x = sizes.place.normal(max(sizes.counts), K)
        w = sizes.place.normal(N, K, scale=K**-0.5)
        assert_same_bits({count: linear(rows_of(x, count), w) for count in sizes.counts})


@everywhere
def test_norms(sizes: Sizes) -> None:
    x, weight = sizes.place.normal(max(sizes.counts), sizes.D), sizes.place.normal(sizes.D)
    for part in range(2):
        assert_same_bits({
            count: add_norm(rows_of(x, count), rows_of(x, count), weight, 1e-5)[part]
            for count in sizes.counts
        })  # fmt: skip


@everywhere
def test_queries_and_keys(sizes: Sizes) -> None:
    place, H, K, E = sizes.place, *sizes.heads[0]
    most = max(sizes.counts)
    qkv, angles = place.normal(most, (H + 2 * K) * E), place.normal(most, E // 2, dtype=torch.float)
    weight, slots = place.normal(E), place.ints(torch.arange(most))
    queries, keys = {}, {}
    for count in sizes.counts:
        pages = place.nans(2, most, 1, K, E)
        cos, sin = (rows_of(f(angles), count) for f in (torch.cos, torch.sin))
        queries[count] = norm_rotate_write(
            rows_of(qkv, count), weight, weight, cos, sin, slots[:count], *pages, 1e-6
        )
        keys[count] = pages[0, :count, 0]
    assert_same_bits(queries)
    assert_same_bits(keys)


@everywhere
def test_experts(sizes: Sizes) -> None:
    place, D = sizes.place, sizes.D
    for X, width, chosen, is_sigmoid in sizes.mixtures:
        router = router_of(place, X, D, chosen, is_sigmoid=is_sigmoid)
        experts, norm = experts_of(place, X, D, width), place.normal(D)
        h, x = place.normal(2, max(sizes.counts), D)
        outputs: dict[int, list[Tensor]] = {
            count: list(moe(rows_of(h, count), rows_of(x, count), router, experts, norm, 1e-5))
            for count in sizes.counts
        }
        for part in range(2):
            assert_same_bits({count: out[part] for count, out in outputs.items()})


@everywhere
def test_routers(sizes: Sizes) -> None:
    place = sizes.place
    for X, _, chosen, is_sigmoid in sizes.mixtures:
        router = router_of(place, X, sizes.D, chosen, is_sigmoid=is_sigmoid)
        h = place.normal(max(sizes.counts), sizes.D)
        its = replace(router, own_below=2**62)
        assert_same_bits({c: router_logits(rows_of(h, c), its) for c in sizes.counts})


@everywhere
def test_attention(sizes: Sizes) -> None:
    """Each run alone, and among the others in two orders."""
    place, kinds = sizes.place, set[AttentionTile]()
    for H, K, E in sizes.heads:
        count = len(sizes.contexts)
        spans = [min(context, 600 if context % 2 else 16) for context in sizes.contexts]
        q, k, v, layout = case(place, spans, list(sizes.contexts), H, K, E, page_size=16)
        starts = layout.query_starts.tolist()
        queries = [q[starts[run] : starts[run + 1]] for run in range(count)]

        def attend(
            runs: list[int], q: Tensor, lengths: list[int], heads: tuple[int, int], k=k, v=v,
            layout=layout,
        ) -> list[Tensor]:  # fmt: skip
            its = place.ints(runs, torch.int64)
            host_starts = np.concatenate(([0], np.cumsum(lengths)))
            chosen = replace(
                layout,
                query_starts=place.ints(host_starts),
                first_slot_R=layout.first_slot_R[its],
                context_lens_R=layout.context_lens_R[its],
            )
            contexts = chosen.context_lens_R.cpu().numpy()
            plans = plan_tiles(host_starts, contexts, *heads, Splits.BY_CONTEXT)
            kinds.update(plan.tile for plan in plans)
            tiles = [
                Tiles(
                    tile=plan.tile, run_A=place.ints(plan.run_A), first_A=place.ints(plan.first_A)
                )
                for plan in plans
            ]
            return list(paged_attention(q, k, v, chosen, tiles).split(lengths))

        alone = [attend([r], queries[r], [spans[r]], (H, K))[0] for r in range(count)]
        for order in (list(range(count)), list(reversed(range(count)))):
            lengths = [spans[run] for run in order]
            together = torch.cat([queries[run] for run in order])
            for run, got in zip(order, attend(order, together, lengths, (H, K)), strict=True):
                assert torch.equal(got, alone[run]), f"run {run} of {H}/{K} heads"
    # Long spans; without splits; all splits by one program; by a program for each.
    assert len({(kind.use_tma, kind.splits, kind.is_spread) for kind in kinds}) == 4


@everywhere
@pytest.mark.parametrize("is_sampled", [False, True])
def test_heads(sizes: Sizes, is_sampled: bool) -> None:
    place, counts = sizes.place, [count for count in sizes.counts if count <= 1000]
    logits = place.normal(max(counts), sizes.V, scale=3)
    keys = place.ints(torch.randint(-(2**63), 2**63 - 1, (max(counts),)), torch.int64)
    temperature = torch.ones(max(counts), device=place.device)
    outputs = {}
    for count in counts:
        noise = Noise(key_M=rows_of(keys, count), temperature_M=temperature[:count])
        words = reduce(rows_of(logits, count), noise if is_sampled else None)
        outputs[count] = torch.stack([part.double() for part in words], dim=1)
    assert_same_bits(outputs)
