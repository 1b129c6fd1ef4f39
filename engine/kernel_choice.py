"""Chooses how a model is computed: by plain torch or by the Triton kernels (engine.kernels).

Shape letters as in engine/runner.py.
"""

import logging
from typing import Protocol

from torch import Tensor

from engine.batch import HostBatch
from engine.cache.kv import KVPages
from engine.config import BYTES_PER_LOGIT, EngineConfig
from engine.current_device import current
from engine.decoding import reduction
from engine.decoding.reduction import Reduction
from engine.device_batch import Batch
from engine.errors import UserError
from engine.kernels.reference import paged_attention_views
from engine.kernels.supported import ModelShape, unsupported
from engine.kernels.tiles import HostTiles
from engine.model import operations
from engine.model.layers import Attend, over_heads
from engine.model.operations import Operations
from engine.model.transformer import Transformer

log = logging.getLogger("engine")


class Kernels(Protocol):
    """One way to compute the forwards of one model."""

    @property
    def is_capturable(self) -> bool:
        """Whether a forward reads nothing on the host, so that a graph can capture it."""

    @property
    def reduction(self) -> Reduction:
        """What reads the logits."""

    def bytes_per_logit(self, any_sampled: bool, reads_whole: bool) -> int:
        """Peak memory per logit, in bytes, with all that is computed from it. `any_sampled`: with
        noise; `reads_whole`: for a strategy that reads the whole logits, or soft iteration."""

    def tiles(self, host: HostBatch) -> list[HostTiles]:
        """How attention divides the runs of a batch among its programs."""

    def operations(self, batch: Batch) -> Operations:
        """The operations of the transformer for this batch."""

    def attend(self, kv: KVPages, batch: Batch) -> Attend:
        """What stores K and V of the batch's query tokens, and attends to their contexts."""

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Logits of this rank's words, [M, U], contiguous, in a dtype that `reduction` reads."""


class TorchKernels:
    """Plain torch."""

    is_capturable = False

    def __init__(self, model: Transformer) -> None:
        self._model = model
        is_on_cpu = model.embed.weight.device.type == "cpu"
        self.reduction: Reduction = reduction.CPU if is_on_cpu else reduction.TORCH

    def bytes_per_logit(self, any_sampled: bool, reads_whole: bool) -> int:
        return BYTES_PER_LOGIT[any_sampled]

    def tiles(self, host: HostBatch) -> list[HostTiles]:
        return []

    def operations(self, batch: Batch) -> Operations:
        return operations.TORCH

    def attend(self, kv: KVPages, batch: Batch) -> Attend:
        @over_heads
        def attend(layer: int, q_QHE: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> Tensor:
            kv.write(layer, batch.slots_Q, k_QKE, v_QKE)
            return paged_attention_views(q_QHE, *kv.layer(layer), batch.layout)

        return attend

    def logits(self, hidden_MD: Tensor) -> Tensor:
        return self._model.logits(hidden_MD).float()


def kernels_for(model: Transformer, config: EngineConfig) -> Kernels:
    """The kernels that engine.kernels asks for. Lays out the model's weights for them, so call it
    before the rest of the memory is given away.

    Raises:
        UserError: engine.kernels=triton, but the device, the dtype or the model's shape is one that
            they do not serve.
    """
    weight = model.embed.weight
    reason = None
    if config.kernels != "torch":
        reason = unsupported(_shape_of(model), weight.dtype, weight.device)
    if config.kernels == "triton" and reason is not None:
        raise UserError(
            f"engine.kernels=triton: {reason}; take engine.kernels=auto, which takes plain torch "
            "where the kernels do not serve"
        )
    if config.kernels == "triton" or (
        config.kernels == "auto" and weight.is_cuda and reason is None
    ):
        # Only here, because it imports triton.
        from engine.triton_kernels import TritonKernels

        _say_what_ranks_may_change(model, config)
        with current(weight.device):
            return TritonKernels(model, config)
    if weight.is_cuda:
        if reason is not None:
            log.warning("engine.kernels=auto: plain torch, which is slower: %s", reason)
        if config.batch_invariant:
            log.warning(
                "engine.batch_invariant=true holds on a GPU with the Triton kernels only: with "
                "plain torch, rounding depends on the batch"
            )
    return TorchKernels(model)


def _say_what_ranks_may_change(model: Transformer, config: EngineConfig) -> None:
    """Sums over two ranks have one order; over more, the backend chooses it by their size."""
    if config.batch_invariant and model.parallel.size > 2 and model.embed.weight.is_cuda:
        log.warning(
            "engine.batch_invariant=true holds for up to two ranks: with engine.tensor_parallel=%d "
            "the order in which sums over the ranks are rounded may depend on the batch",
            model.parallel.size,
        )


def _shape_of(model: Transformer) -> ModelShape:
    """This rank's share of the model."""
    config, experts = model.config, model.config.experts
    return ModelShape(
        hidden_size=config.hidden_size,
        head_dim=config.head_dim,
        num_heads=len(model.parallel.share(config.num_heads)),
        num_kv_heads=model.num_kv_heads,
        num_experts=experts.num_experts if experts else 0,
        num_groups=experts.num_groups if experts else 1,
        num_chosen_groups=experts.num_chosen_groups if experts else 1,
    )
