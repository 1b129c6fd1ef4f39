"""Every kernel against its reference, at the widths of one model and with odd numbers of rows.

Imports triton, so it is imported only where the kernels can run.

Shape letters as in engine/kernels/.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.kernels.attention import Tiles, paged_attention, plan_tiles
from engine.kernels.experts import ExpertWeights, experts_reference, moe
from engine.kernels.head import reduce, reduce_reference
from engine.kernels.linear import linear, linear_reference
from engine.kernels.norm import add_norm, add_norm_reference
from engine.kernels.qkv import norm_rotate_write, norm_rotate_write_reference
from engine.kernels.reference import HostRuns, PagedLayout, Run, paged_attention_reference
from engine.kernels.route import RouterWeights, route, route_reference, split_in_three
from engine.kernels.swiglu import swiglu, swiglu_reference
from engine.kernels.tiles import Splits
from engine.model.config import ExpertsConfig, ModelConfig
from jobs.bench.gpu.floors import linear_shapes

MOST_ERROR = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 1.2e-2}
"""||got - expected|| / ||expected||; a NaN is never little enough."""
LEAST_SAME_CHOICE = 0.99
"""Share of tokens that choose their reference's experts; the others' scores nearly tie."""
PAGE_SIZE, EPS = 16, 1e-6
SPANS = (1, 63, 65, 32, 300)
CONTEXTS = (1, 63, 65, 1000, 333)


class Compared(NamedTuple):
    operation: str
    error: float
    limit: float


class KernelChecks:
    """Compares the kernels on random inputs of one model's widths."""

    def __init__(
        self, config: ModelConfig, device: torch.device, dtype: torch.dtype, rows: tuple[int, ...]
    ) -> None:
        """`rows`: of the matrices, for each kernel that takes some."""
        self._config, self._device, self._dtype, self._rows = config, device, dtype, rows
        self._generator = torch.Generator(device).manual_seed(0)

    def run(self) -> Iterator[Compared]:
        checks: list[tuple[str, Callable[[], float]]] = [
            *((f"norm, {M} rows", partial(self._norm, M)) for M in self._rows),
            ("norm of heads, rotary, K/V write", self._qkv),
            ("attention, splits by context", partial(self._attention, Splits.BY_CONTEXT)),
            ("attention, splits by programs", partial(self._attention, Splits.BY_PROGRAMS)),
            *((f"head, {M} rows", partial(self._head, M)) for M in self._rows[:2]),
            *((f"SwiGLU, {M} rows", partial(self._swiglu, M)) for M in self._rows),
        ]
        for name, N, K, _ in linear_shapes(self._config):
            its = [(f"linear {name}, {M} rows", partial(self._linear, M, N, K)) for M in self._rows]
            checks += its
        for operation, error in checks:
            yield Compared(operation, error(), MOST_ERROR[self._dtype])
        if self._config.experts is not None:
            yield from self._experts(self._config.experts)

    def _normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        empty = torch.empty(shape, device=self._device, dtype=dtype or self._dtype)
        return empty.normal_(0, scale, generator=self._generator)

    def _ints(self, values: object) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int32).to(self._device)

    def _norm(self, M: int) -> float:
        x, delta = (self._normal(M, self._config.hidden_size) for _ in range(2))
        rest = (delta, self._normal(self._config.hidden_size), EPS)
        return worst(add_norm(x, *rest), add_norm_reference(x, *rest))

    def _swiglu(self, M: int) -> float:
        gate_up = self._normal(M, 2 * self._config.mlp_size)
        return error_of(swiglu(gate_up), swiglu_reference(gate_up))

    def _linear(self, M: int, N: int, K: int) -> float:
        x, w = self._normal(M, K), self._normal(N, K, scale=K**-0.5)
        return error_of(linear(x, w), linear_reference(x, w))

    def _head(self, M: int) -> float:
        logits = self._normal(M, self._config.vocab_size, scale=3.0)
        logits[:, self._config.mask_token_id] = -torch.inf  # the mask is never predicted
        got, expected = reduce(logits), reduce_reference(logits)
        # In bfloat16 several words may have the highest logit: the logit counts, not the word.
        return worst((got.logit_M, got.others_M, got.entropy_M), expected[1:3] + expected[4:5])

    def _qkv(self) -> float:
        config, num_tokens = self._config, 7
        E, K = config.head_dim, config.num_kv_heads
        qkv = self._normal(num_tokens, (config.num_heads + 2 * K) * E)
        q_norm, k_norm = (self._normal(E) if config.qk_norm else None for _ in range(2))
        angles = self._normal(num_tokens, (config.rotary_dim or E) // 2, dtype=torch.float32)
        slots = 5 + 7 * torch.arange(num_tokens, device=self._device)
        pages = [[self._normal(4, PAGE_SIZE, K, E) for _ in range(2)]]
        pages.append([page.clone() for page in pages[0]])
        cos, sin, (k, v), (k_ref, v_ref) = angles.cos(), angles.sin(), *pages
        got = norm_rotate_write(qkv, q_norm, k_norm, cos, sin, slots, k, v, EPS)
        expected = norm_rotate_write_reference(
            qkv, q_norm, k_norm, cos, sin, slots, k_ref, v_ref, EPS
        )
        return worst((got, k, v), (expected, k_ref, v_ref))

    def _attention(self, splits: Splits) -> float:
        """Ragged runs, with NaN in all that stands in no run's context."""
        config, runs = self._config, list(_runs())
        H, K, E = config.num_heads, config.num_kv_heads, config.head_dim
        num_pages = sum(_pages(context) for context in CONTEXTS)
        k, v = (
            torch.full((num_pages, PAGE_SIZE, K, E), math.nan, device=self._device).to(self._dtype)
            for _ in range(2)
        )
        for _, _, slot, context in runs:
            for pages in (k, v):
                pages.flatten(0, 1)[slot : slot + context] = self._normal(context, K, E)
        starts = [0, *(end for _, end, *_ in runs)]
        layout = PagedLayout(
            query_starts=self._ints(starts),
            first_slot_R=self._ints([slot for *_, slot, _ in runs]),
            context_lens_R=self._ints(CONTEXTS),
            longest_context=max(CONTEXTS),
            host_runs=HostRuns(
                np.array(starts), np.array([slot for *_, slot, _ in runs]), np.array(CONTEXTS)
            ),
        )
        q = self._normal(sum(SPANS), H, E)
        tiles = [
            Tiles(tile=its.tile, run_A=self._ints(its.run_A), first_A=self._ints(its.first_A))
            for its in plan_tiles(np.array(starts), np.array(CONTEXTS), H, K, splits)
        ]
        got = paged_attention(q, k, v, layout, tiles)
        return error_of(got, paged_attention_reference(q, k, v, layout))

    def _experts(self, experts: ExpertsConfig) -> Iterator[Compared]:
        router, weights = self._router(experts), self._weights(experts)
        D = self._config.hidden_size
        for M in self._rows:
            h, x, norm = self._normal(M, D), self._normal(M, D), self._normal(D)
            chosen, shares, _ = route(h, router)
            router.counts_X.zero_()
            chosen_ref, _ = route_reference(h, router)
            is_same = (chosen.long().sort(1).values == chosen_ref.sort(1).values).all(1)
            missed = 1 - float(is_same.float().mean())
            yield Compared(f"choice of experts, {M} rows", missed, 1 - LEAST_SAME_CHOICE)
            expected = experts_reference(h, chosen.long(), shares, weights) + x.float()
            _, normed = add_norm_reference(expected, None, norm.float(), EPS)
            got = moe(h, x, router, weights, norm, EPS)
            error = worst(got, (expected, normed))
            yield Compared(f"experts, {M} rows", error, MOST_ERROR[self._dtype])

    def _router(self, experts: ExpertsConfig) -> RouterWeights:
        X, D = experts.num_experts, self._config.hidden_size
        weight = self._normal(X, D, scale=D**-0.5, dtype=torch.float32)
        bias = self._normal(X, scale=0.05, dtype=torch.float32) if experts.has_bias else None
        return RouterWeights(
            parts=split_in_three(weight) if self._dtype == torch.bfloat16 else weight,
            bias_X=bias,
            num_chosen=experts.num_chosen,
            is_sigmoid=experts.score == "sigmoid",
            is_normalised=experts.is_normalised,
            scale=experts.routed_scale,
            num_groups=experts.num_groups,
            num_chosen_groups=experts.num_chosen_groups,
            counts_X=self._ints([0] * X),
        )

    def _weights(self, experts: ExpertsConfig) -> ExpertWeights:
        X, I, D = experts.num_experts, experts.expert_size, self._config.hidden_size  # noqa: E741
        return ExpertWeights(
            gate_up_XID=self._normal(X, 2 * I, D, scale=D**-0.5),
            down_XDI=self._normal(X, D, I, scale=I**-0.5),
        )


def error_of(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double(), expected.double()
    return float((got - expected).norm() / expected.norm().clamp(min=1e-30))


def worst(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """NaN if an error is NaN."""
    errors = torch.tensor([error_of(a, b) for a, b in zip(got, expected, strict=True)])
    return float(errors.max())


def _pages(context: int) -> int:
    """Pages of a run, and one behind it that nothing may read."""
    return -(-context // PAGE_SIZE) + 1


def _runs() -> Iterator[Run]:
    start, page = 0, 0
    for span, context in zip(SPANS, CONTEXTS, strict=True):
        yield start, start + span, page * PAGE_SIZE, context
        start, page = start + span, page + _pages(context)
