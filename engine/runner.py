"""Batch -> logits: the model, its pages and the clock. No policy."""

import time

import torch
from torch import Tensor

from engine.batch import Batch
from engine.cache.kv import KVPages
from engine.kernels.reference import paged_attention_views
from engine.model.transformer import Transformer


class ModelRunner:
    def __init__(self, model: Transformer, num_pages: int, page_size: int) -> None:
        embedding = model.embed.weight
        self.model = model
        self.device = embedding.device
        self.kv = KVPages(model.config, num_pages, page_size, embedding.dtype, self.device)
        self._clock = _CudaClock() if self.device.type == "cuda" else _HostClock()

    def forward(self, batch: Batch, token_ids_Q: Tensor) -> Tensor:
        """Logits at the masked positions, float32 [M, V]; -inf at the mask token.

        K and V of every query token are in their pages afterwards.
        """

        def attend(layer: int, q_QHE: Tensor, k_QKE: Tensor, v_QKE: Tensor) -> Tensor:
            self.kv.write(layer, batch.slots_Q, k_QKE, v_QKE)
            return paged_attention_views(q_QHE, *self.kv.layer(layer), batch.layout)

        self._clock.start()
        hidden_QD = self.model(self.model.embed(token_ids_Q), batch.positions_Q, attend)
        logits_MV = self.model.logits(hidden_QD[batch.logit_index_M])
        self._clock.stop()
        logits_MV[:, self.model.config.mask_token_id] = -torch.inf
        return logits_MV

    def forward_s(self) -> float:
        """Seconds of the last forward. On a GPU, ask only after its results were read: else it
        waits."""
        return self._clock.elapsed_s()


class _HostClock:
    def start(self) -> None:
        self._start = time.perf_counter()

    def stop(self) -> None:
        self._stop = time.perf_counter()

    def elapsed_s(self) -> float:
        return self._stop - self._start


class _CudaClock:
    def __init__(self) -> None:
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def start(self) -> None:
        self._events[0].record()

    def stop(self) -> None:
        self._events[1].record()

    def elapsed_s(self) -> float:
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1e3
