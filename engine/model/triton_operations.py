"""The operations of the transformer by the Triton kernels of engine/kernels/.

Imports triton, so it is imported only by who has chosen the kernels.

Shape letters as in engine/model/layers.py; M asked positions, V words on this rank.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.kernels.experts import ExpertWeights, moe_partial
from engine.kernels.experts import moe as moe_and_norm
from engine.kernels.linear import linear
from engine.kernels.norm import add_norm
from engine.kernels.route import RouterWeights, router_logits, split_in_three
from engine.kernels.swiglu import swiglu
from engine.model.layers import RMSNorm
from engine.model.moe import MoE, Router
from engine.model.same_bits import ALWAYS, SIZES, rows_for_own_kernel
from engine.model.transformer import Transformer

log = logging.getLogger("engine")

CHECKED: WeakKeyDictionary[Transformer, dict[tuple[object, ...], int]] = WeakKeyDictionary()
"""Of each model, below how many rows the engine's own kernel computes its products (see
laid_out_with_same_bits)."""


class MoEWeights(NamedTuple):
    """The weights of one MoE as the kernels want them."""

    router: RouterWeights
    experts: ExpertWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOperations:
    """The kernels, with the weights of one model laid out for them."""

    moes: Mapping[MoE, MoEWeights]
    own_linears: Mapping[nn.Module, int]
    """The linears that the kernel computes instead of cuBLAS, and below how many rows."""
    own_head: int
    """Below how many rows it computes the head."""
    num_rows: Tensor | None = None
    """int32 [1]: query tokens from this one on only pad a graph; None if there are none."""

    def linear(self, x_QD: Tensor, layer: nn.Linear) -> Tensor:
        if x_QD.shape[0] < self.own_linears.get(layer, 0):
            return linear(x_QD, layer.weight, layer.bias)
        return F.linear(x_QD, layer.weight, layer.bias)

    def head(self, hidden_MD: Tensor, weight_VD: Tensor) -> Tensor:
        is_own = hidden_MD.shape[0] < self.own_head
        return (linear if is_own else F.linear)(hidden_MD, weight_VD)

    def add_norm(
        self, x_QD: Tensor, delta_QD: Tensor | None, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        return add_norm(x_QD, delta_QD, norm.weight, norm.eps)

    def swiglu(self, gate_up: Tensor) -> Tensor:
        return swiglu(gate_up)

    def moe(self, h_QD: Tensor, moe: MoE) -> Tensor:
        weights = self.moes[moe]
        shared_QD = None if moe.shared is None else moe.shared(h_QD, self)
        return moe_partial(h_QD, *weights, shared_QD, num_rows=self.num_rows)

    def add_moe_norm(
        self, x_QD: Tensor, h_QD: Tensor, moe: MoE, norm: RMSNorm
    ) -> tuple[Tensor, Tensor]:
        weights = self.moes[moe]
        shared_QD = None if moe.shared is None else moe.shared(h_QD, self)
        return moe_and_norm(
            h_QD, x_QD, *weights, norm.weight, norm.eps, shared_QD, num_rows=self.num_rows
        )

    def of_selected(self) -> "TritonOperations":
        return self if self.num_rows is None else replace(self, num_rows=None)


def laid_out(model: Transformer, own_below: Callable[["Product"], int]) -> TritonOperations:
    """The operations of a model, which is on its device already. `own_below` says below how many
    rows the engine's own kernel computes a shape of linear instead of cuBLAS."""
    experts = model.config.experts
    scratch_X = torch.zeros(
        experts.num_experts if experts else 0, dtype=torch.int32, device=model.embed.weight.device
    )
    moes = {
        module: MoEWeights(_router(module.router, model, scratch_X), _experts(module))
        for module in model.modules()
        if isinstance(module, MoE)
    }
    own = [(product, own_below(product)) for product in _products(model, moes)]
    for below in (below for product, below in own if product.is_router and below):
        moes = {
            module: weights._replace(router=replace(weights.router, own_below=below))
            for module, weights in moes.items()
        }
    return TritonOperations(
        moes=moes,
        own_linears={layer: below for product, below in own for layer in product.layers if below},
        own_head=max(below for product, below in own if product.is_head),
    )


def laid_out_with_same_bits(model: Transformer, check_bytes: int) -> TritonOperations:
    """`laid_out` with the engine's own kernel where cuBLAS was found, now and on this device, to
    give a row other bits with other neighbours, below the number of rows from which on it gives
    those of the kernel; in Triton's interpreter, everywhere.

    The check takes up to `check_bytes` of memory, or half of what is free; it gives it back. The
    log names the shapes, and says how long the check took. A second engine for the same model takes
    over what was found.
    """
    if not model.embed.weight.is_cuda:
        return laid_out(model, lambda product: ALWAYS)
    start, names = time.perf_counter(), list[str]()
    weight, places, known = model.embed.weight, count(), CHECKED.setdefault(model, {})
    room = min(check_bytes, torch.cuda.mem_get_info(weight.device)[0] // 2)

    def own_below(product: Product) -> int:
        key = (weight.device, weight.dtype, check_bytes, next(places))
        if key not in known:
            known[key] = product.own_below(room)
        if below := known[key]:
            names.append(product.name + ("" if below == ALWAYS else f" below {below} rows"))
        return known[key]

    operations = laid_out(model, own_below)
    torch.cuda.empty_cache()
    log.info(
        "engine.batch_invariant: linears whose bits depend on the batch on this GPU, so that the "
        "engine's own kernel computes them: %s (checked in %.1f s)",
        ", ".join(names) or "none",
        time.perf_counter() - start,
    )
    return operations


@dataclass(slots=True, kw_only=True)
class Product:
    """One shape of linear in the model, and who has it."""

    name: str
    compute: Callable[[Tensor], Tensor]
    """By cuBLAS."""
    own: Callable[[Tensor], Tensor]
    """By the engine's kernel."""
    num_outputs: int
    num_inputs: int
    like: Tensor
    layers: list[nn.Module]
    is_head: bool = False
    is_router: bool = False

    def own_below(self, check_bytes: int) -> int:
        """Below how many rows `own` is to compute (see rows_for_own_kernel), as far as rows fit
        into the memory."""
        size = self.like.itemsize
        # Two results and their comparison; the inputs, also in float32, and a copy of them.
        out_size = torch.float32.itemsize if self.is_router else size
        row_bytes = (2 * out_size + 1) * self.num_outputs + (4 + 2 * size) * self.num_inputs
        most_rows = min(SIZES[-1], max(2, check_bytes // row_bytes))
        return rows_for_own_kernel(self.compute, self.own, self.num_inputs, most_rows, self.like)


def _products(model: Transformer, moes: Mapping[MoE, MoEWeights]) -> Iterator[Product]:
    """Every shape of linear in the model, once, computed by cuBLAS."""
    like, found = model.embed.weight, dict[tuple[object, ...], list[nn.Linear]]()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "head":
            key = (module.weight.shape, module.bias is None)
            found.setdefault(key, []).append(module)
    for layers in found.values():
        num_outputs, num_inputs = layers[0].weight.shape
        yield Product(
            name=f"{num_outputs}x{num_inputs}",
            compute=partial(F.linear, weight=layers[0].weight, bias=layers[0].bias),
            own=partial(linear, w_NK=layers[0].weight, bias_N=layers[0].bias),
            num_outputs=num_outputs,
            num_inputs=num_inputs,
            like=like,
            layers=list(layers),
        )
    head_VD = model.head_weight
    yield Product(
        name=f"head {head_VD.shape[0]}x{head_VD.shape[1]}",
        compute=partial(F.linear, weight=head_VD),
        own=partial(linear, w_NK=head_VD),
        num_outputs=head_VD.shape[0],
        num_inputs=head_VD.shape[1],
        like=like,
        layers=[],
        is_head=True,
    )
    if moes:
        router = next(iter(moes.values())).router
        yield Product(
            name=f"router {router.parts.shape[0]}x{router.parts.shape[1]}",
            compute=partial(router_logits, router=router),
            own=partial(router_logits, router=replace(router, own_below=ALWAYS)),
            num_outputs=router.parts.shape[0],
            num_inputs=router.parts.shape[1],
            like=like,
            layers=[],
            is_router=True,
        )


def _router(router: Router, model: Transformer, counts_X: Tensor) -> RouterWeights:
    config, is_bf16 = router.config, model.embed.weight.dtype == torch.bfloat16
    return RouterWeights(
        parts=split_in_three(router.weight) if is_bf16 else router.weight,
        bias_X=router.bias if config.has_bias else None,
        num_chosen=config.num_chosen,
        is_sigmoid=config.score == "sigmoid",
        is_normalised=config.is_normalised,
        scale=config.routed_scale,
        num_groups=config.num_groups,
        num_chosen_groups=config.num_chosen_groups,
        counts_X=counts_X,
    )


def _experts(module: MoE) -> ExpertWeights:
    experts = module.experts
    return ExpertWeights(
        gate_up_XID=experts.gate_up, down_XDI=experts.down, first_expert=experts.local.start
    )
