"""A model on the Triton kernels of engine/kernels/.

Imports triton, so it is imported only by who has chosen the kernels (engine/kernel_choice.py).

Shape letters as in engine/runner.py.
"""

from dataclasses import replace

from torch import Tensor, nn

from engine.batch import HostBatch
from engine.cache.kv import KVPages
from engine.config import EngineConfig
from engine.decoding.triton_reduction import TritonReduction
from engine.device_batch import Batch
from engine.kernels.attention import HostTiles, paged_attention, plan_tiles
from engine.kernels.attention_bits import splits_with_same_bits
from engine.kernels.qkv import norm_rotate_write
from engine.kernels.tiles import Splits
from engine.model.layers import Attend, Attention
from engine.model.operations import Operations
from engine.model.transformer import Transformer
from engine.model.triton_operations import laid_out, laid_out_with_same_bits


class TritonKernels:
    """One launch for each step between two linears. No forward reads the host."""

    is_capturable = True

    def __init__(self, model: Transformer, config: EngineConfig) -> None:
        self._model = model
        self._num_heads = len(model.parallel.share(model.config.num_heads))
        self._splits = Splits.BY_PROGRAMS
        if config.batch_invariant:
            weight = model.embed.weight
            self._splits = splits_with_same_bits(
                self._num_heads,
                model.num_kv_heads,
                model.config.head_dim,
                weight.dtype,
                weight.device,
            )
            # So much that a whole piece of logits fits twice. It gives the memory of both checks
            # back.
            self._operations = laid_out_with_same_bits(model, 2 * config.logits_bytes)
        else:
            self._operations = laid_out(model, lambda product: 0)
        self.reduction = TritonReduction(config.batch_invariant)

    def bytes_per_logit(self, any_sampled: bool, reads_whole: bool) -> int:
        """The head's own bytes, and little else. Strategies that read whole logits make float32
        copies of them, or sort them; soft iteration makes three."""
        own = self._model.embed.weight.itemsize
        return own + (18 if reads_whole else 1)

    def tiles(self, host: HostBatch) -> list[HostTiles]:
        return plan_tiles(
            host.query_starts,
            host.context_lens_R,
            self._num_heads,
            self._model.num_kv_heads,
            self._splits,
        )

    def operations(self, batch: Batch) -> Operations:
        return replace(self._operations, num_rows=batch.num_rows)

    def attend(self, kv: KVPages, batch: Batch) -> Attend:
        table_RT = batch.layout.page_table(kv.page_size)

        def attend(attention: Attention, qkv_QF: Tensor, cos_QR: Tensor, sin_QR: Tensor) -> Tensor:
            k_NPKE, v_NPKE = kv.layer(attention.layer)
            q_QHE = norm_rotate_write(
                qkv_QF,
                _weight(attention.q_norm),
                _weight(attention.k_norm),
                cos_QR,
                sin_QR,
                batch.slots_Q,
                k_NPKE,
                v_NPKE,
                self._model.config.norm_eps,
            )
            tiles = batch.tiles
            return paged_attention(q_QHE, k_NPKE, v_NPKE, batch.layout, tiles, table_RT=table_RT)

        return attend

    def logits(self, hidden_MD: Tensor) -> Tensor:
        return self._model.logits(hidden_MD, self._operations)


def _weight(norm: nn.Module) -> Tensor | None:
    """The weight of a head's norm; None if the model has none."""
    weight = getattr(norm, "weight", None)
    return weight if isinstance(weight, Tensor) else None
